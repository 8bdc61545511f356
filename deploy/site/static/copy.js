// A button at each block of code that copies it. Comments and prompts go along: a shell takes no harm from a comment.
document.addEventListener("DOMContentLoaded", () => {
  if (!navigator.clipboard) return; // of a page by plain http from elsewhere
  for (const block of document.querySelectorAll("div.highlight")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("pre").textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    block.append(button);
  }
});
