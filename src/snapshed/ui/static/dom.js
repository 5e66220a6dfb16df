// Making elements without ever reading text as markup: names and metadata come from strangers.

export const by = (id) => document.getElementById(id);

export function make(tag, facts = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const signs = new Map([...(by("signs")?.content.children ?? [])].map((one) => [one.dataset.sign, one.firstElementChild]));
export const sign = (name) => (signs.get(name) ?? signs.get("plain")).cloneNode(true);

export const remembered = (name, otherwise) => {
  try { return localStorage.getItem(`snapshed-${name}`) ?? otherwise; } catch { return otherwise; }
};
export const remember = (name, value) => {
  try { localStorage.setItem(`snapshed-${name}`, value); } catch { /* private windows may refuse */ }
};

export const number = (value) => value.toLocaleString("en");
export const many = (count, one) => `${number(count)} ${count === 1 ? one : `${one}s`}`;
export const lastPart = (name) => name.slice(name.lastIndexOf("/") + 1);
