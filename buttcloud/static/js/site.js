// What every page needs: say that scripts run, and copy buttons.

document.documentElement.classList.add("js");

async function copy(button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    // Without https a browser keeps the clipboard closed: mark the text, so that one key press copies it.
    const shown = button.closest(".copyable")?.querySelector("code");
    if (shown) getSelection().selectAllChildren(shown);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = before), 2000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});
