// The list of schedules: one tick for all, and how many are ticked. Without it each row is ticked by itself.
(() => {
  const boxes = () => [...document.querySelectorAll('input[name="schedule"]')];
  document.addEventListener("change", event => {
    if (event.target.matches("[data-tick-all]")) boxes().forEach(box => { box.checked = event.target.checked; });
    else if (!event.target.matches('input[name="schedule"]')) return;
    const told = document.querySelector("[data-ticked]");
    const ticked = boxes().filter(box => box.checked).length;
    if (told) told.textContent = ticked ? `${ticked} / ${boxes().length}` : "";
  });
})();
