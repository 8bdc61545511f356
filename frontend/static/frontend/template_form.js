// Beside a template that is being written: the frame with its HTML, and the preview of the section that is open.
(() => {
  // The frame is made anew with each preview, so that what it shows is no step of the browser's history.
  function showBody() {
    const button = document.querySelector("[data-body]");
    if (!button) return;
    button.hidden = true;
    button.form.requestSubmit(button);
  }
  document.body.addEventListener("htmx:afterSwap", event => {
    if (event.detail.target.id === "preview") showBody();
  });
  showBody();

  // Whoever opens a section wants to see that one.
  document.addEventListener("toggle", event => {
    const section = event.target;
    if (!section.matches("[data-content]") || !section.open) return;
    const channel = section.querySelector("[name$=-channel]").value;
    const locale = section.querySelector("[name$=-locale]").value;
    const selects = { channel: document.getElementById("preview-channel"), locale: document.getElementById("preview-language") };
    if (!selects.channel || !locale) return;
    selects.channel.value = channel;
    if (![...selects.locale.options].some(option => option.value === locale)) selects.locale.add(new Option(locale, locale));
    selects.locale.value = locale;
    selects.locale.dispatchEvent(new Event("input", { bubbles: true }));
  }, true);
})();
