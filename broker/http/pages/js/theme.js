// A classic script in <head>: it runs before the first paint, so nobody sees a flash of the other theme.
(function () {
  const query = new URLSearchParams(location.search);
  let kept = {};
  try { kept = { theme: localStorage.getItem("theme"), lang: localStorage.getItem("lang") }; } catch { /* storage is blocked */ }
  const theme = query.get("theme") || kept.theme || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  const lang = query.get("lang") || kept.lang || navigator.language;
  document.documentElement.dataset.theme = theme === "light" ? "light" : "dark";
  document.documentElement.lang = lang.startsWith("zh") ? "zh-CN" : "en";
})();
