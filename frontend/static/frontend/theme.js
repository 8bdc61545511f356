// Before the first paint: the theme chosen with the switch (kept where the admin keeps it), else the system's.
(() => {
  const KEY = "_x_adminTheme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try { return JSON.parse(localStorage.getItem(KEY)) || "auto"; } catch { return "auto"; }
  };
  const show = () => {
    const dark = chosen() === "dark" || (chosen() === "auto" && system.matches);
    document.documentElement.classList.toggle("dark", dark);
  };
  window.nsTheme = {
    chosen,
    choose(theme) { localStorage.setItem(KEY, JSON.stringify(theme)); show(); },
  };
  system.addEventListener("change", show);
  show();
})();
