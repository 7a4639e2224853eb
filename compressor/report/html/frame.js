
// What every page has: light and dark, as the system says, until the button says otherwise; in print nothing is folded.
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((found) => (found.open = true)));
