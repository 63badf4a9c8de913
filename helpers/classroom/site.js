// Theme, search and wide tables of the static editions; nothing is asked of another host.
const root = document.documentElement;
const kept = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
               set: (theme) => { try { localStorage.setItem("theme", theme); } catch { /* private */ } } };
if (kept.get()) root.dataset.theme = kept.get();

function toggleTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
  kept.set(root.dataset.theme);
}

// Sections that hold every word asked for, those with the words in their title first.
function find(asked, sections) {
  const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
  const score = (s) => words.filter((w) => (s.page + s.title).toLowerCase().includes(w)).length;
  return sections
    .filter((s) => words.every((w) => (s.page + " " + s.title + " " + s.text).toLowerCase().includes(w)))
    .map((s) => [score(s), s]).sort((a, b) => b[0] - a[0]).slice(0, 12)
    .map(([, s]) => ({ ...s, at: Math.max(0, s.text.toLowerCase().indexOf(words[0]) - 40) }));
}

function show(form, hits, asked) {
  hits.replaceChildren();
  if (asked.trim().length < 2 || !window.SECTIONS) return;
  const found = find(asked, window.SECTIONS);
  for (const s of found) {
    const link = Object.assign(document.createElement("a"), { href: s.href });
    const words = document.createElement("span");
    link.append(s.title === s.page ? s.page : s.page + " › " + s.title);
    words.append(s.text.slice(s.at, s.at + 140).replace(/^\S*\s/, s.at ? "… " : "$&"));
    link.append(words);
    hits.append(link);
  }
  if (!found.length) hits.append(Object.assign(document.createElement("p"), { textContent: form.dataset.none }));
}

function startSearch(form) {
  const [input, hits] = [form.querySelector("input"), form.querySelector("#hits")];
  input.addEventListener("focus", () => {   // the index is loaded when it is wanted
    const script = Object.assign(document.createElement("script"), { src: "search.js" });
    script.onload = () => show(form, hits, input.value);
    document.head.append(script);
  }, { once: true });
  input.addEventListener("input", () => show(form, hits, input.value));
  form.addEventListener("submit", (event) => { event.preventDefault(); hits.querySelector("a")?.click(); });
  form.addEventListener("keydown", (event) => { if (event.key === "Escape") { input.value = ""; hits.replaceChildren(); } });
  document.addEventListener("click", (event) => { if (!form.contains(event.target)) hits.replaceChildren(); });
}

// What scrolls sideways can be reached with the keyboard.
function reachable() {
  for (const box of document.querySelectorAll(".wide")) {
    box.toggleAttribute("tabindex", false);
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme")?.addEventListener("click", toggleTheme);
  const form = document.querySelector("form[role=search]");
  if (form) startSearch(form);
  reachable();
  addEventListener("resize", reachable);
});
