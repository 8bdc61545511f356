// What is read out to people who don't see the page is said once: the same words again are not put in anew.
document.addEventListener("htmx:oobBeforeSwap", event => {
  const { target, fragment } = event.detail;
  if (target.id === "said" && target.textContent.trim() === fragment.textContent.trim()) event.detail.shouldSwap = false;
});
