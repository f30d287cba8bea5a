// The page's language: the browser's unless another was chosen, and the words of it.

import { chinese } from "./chinese.js";
import { english } from "./english.js";

const CATALOGUES = { en: english, zh: chinese };
const CHOICE = "anchorage-language";

let language = chosen() ?? preferred();

function chosen() {
  try {
    const name = localStorage.getItem(CHOICE);
    return name in CATALOGUES ? name : undefined;
  } catch {
    return undefined; // Storage may be switched off.
  }
}

function preferred() {
  const known = navigator.languages.map((tag) => tag.toLowerCase().split("-")[0]);
  return known.find((name) => name in CATALOGUES) ?? "en";
}

export function languages() {
  return Object.entries(CATALOGUES).map(([name, words]) => ({ name, label: words.own_name }));
}

export function currentLanguage() {
  return language;
}

// Speaks `name` from now on; whoever has shown words must show them again.
export function speak(name) {
  language = name;
  try {
    localStorage.setItem(CHOICE, name);
  } catch {
    // It holds for this visit, then.
  }
}

// The words for a key, with {name} replaced from `values`; a word may depend on them.
export function say(key, values = {}) {
  const words = CATALOGUES[language][key];
  const text = typeof words === "function" ? words(values) : words;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// A word of a table, such as a group's name; the table's key itself where it has none.
export function sayOf(table, key) {
  return CATALOGUES[language][table][key] ?? key;
}

// A problem in words: the catalogue's for its code, else what the service said.
export function sayProblem({ code, detail, members }) {
  const words = CATALOGUES[language].problems[code];
  if (!words) return detail || say("unexpected", members);
  const text = typeof words === "function" ? words(members) : words;
  return text.replace(/\{(\w+)\}/g, (_, name) => members[name] ?? "");
}

// Fills the page's own words in: data-words names text, data-label an accessible name.
export function fill(root) {
  root.documentElement.lang = CATALOGUES[language].tag;
  root.title = say("title");
  for (const element of root.querySelectorAll("[data-words]")) {
    element.textContent = say(element.dataset.words);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
  }
}
