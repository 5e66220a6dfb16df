// The review desk: fetches everything about a snapshot once, then moves, looks and decides without loading a page.

import { by, make, many, number, remember, remembered, sign } from "./dom.js";
import { List } from "./list.js";
import { draw, drawPast } from "./panel.js";
import { listen } from "./keys.js";
import { Saving } from "./saving.js";
import { Viewer } from "./viewer.js";

const desk = by("desk");
const number_ = desk?.dataset.number;
if (desk) start().catch((error) => { by("panel").textContent = `The images could not be loaded: ${error.message} Reload the page, or look at the plain list.`; });

async function start() {
  desk.classList.add("is-live");
  const answer = await fetch(`/snapshots/${number_}/review.json`, { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}.`);
  const known = await answer.json();
  const viewer = new Viewer(known.images);
  const saving = new Saving(number_, desk.dataset.csrf, known.decisions, told);
  const list = new List(known.entries, () => saving.decisions, (one) => choose(one));
  const may = desk.dataset.csrf !== undefined;
  let current = null;
  let asked = "";

  const acts = {
    may,
    decide: (decision, group = false) => decide(decision, group),
    undo: () => undo(),
    look: (index) => viewer.look(index),
  };

  function choose(one) {
    if (!one) return;
    const isNew = one !== current;
    current = one;
    list.show(one);
    if (isNew) {
      viewer.show(one);
      history.replaceState(null, "", `#image=${encodeURIComponent(one.name)}`);
    }
    facts();
    recall();
    ahead();
  }

  function facts() {
    draw(current, saving.decisions[current.name], current.alike ? list.alike.get(current.alike) : 0, acts);
    if (pasts.has(current)) drawPast(current, pasts.get(current), Number(number_), home);
  }

  // Asked for once an image is looked at for a moment, not for every one that is passed by.
  const pasts = new Map();
  const home = { project: desk.dataset.project, app: desk.dataset.app };
  let resting = 0;
  function recall() {
    clearTimeout(resting);
    const one = current;
    if (pasts.has(one)) return;
    resting = setTimeout(async () => {
      const asks = new URLSearchParams({ name: one.name });
      for (const picture of [one.head, one.base]) if (picture?.[0]) asks.append("digest", picture[0]);
      const answer = await fetch(`/snapshots/${number_}/about.json?${asks}`).catch(() => null);
      if (!answer?.ok) return;
      pasts.set(one, await answer.json());
      if (one === current) drawPast(one, pasts.get(one), Number(number_), home);
    }, 250);
  }

  // What is looked at next is asked for while this one is looked at.
  function ahead() {
    const next = list.step(1);
    if (!next || next === current) return;
    for (const picture of [next.head, next.base]) if (picture?.[0]) new Image().src = known.images + picture[0];
  }

  function decide(decision, group) {
    if (!may || !current?.decidable) return;
    const members = group && current.alike ? known.entries.filter((one) => one.alike === current.alike) : [current];
    saving.decide(decision, members, group && current.alike ? current.alike : null);
    const word = decision === "approved" ? "Approved" : "Rejected";
    say(members.length > 1 ? `${word} ${many(members.length, "image")} that changed alike.` : `${word} ${current.title ?? current.name}.`, true);
    after();
    if (by("advance").checked) choose(list.nextUndecided() ?? current);
  }

  function undo() {
    if (!may) return;
    const back = saving.undo(current);
    if (!back) { say("There is nothing to undo here."); return; }
    const where = known.entries.find((one) => one.name === back.names[0]);
    say(`Undone: ${many(back.names.length, "image")}.`);
    after();
    if (where) choose(where);
  }

  function after() {
    if (list.waiting) list.arrange(); else list.draw();
    facts();
  }

  // The server's word about everything, after every decision.
  function told(answer) {
    by("badge").replaceChildren(make("span", { class: `pill tone-${answer.badge.tone}` }, sign(answer.badge.tone), answer.badge.label));
    by("sentence").textContent = answer.badge.sentence;
    by("progress").textContent = answer.needing ? `${number(answer.needing - answer.undecided)} of ${number(answer.needing)} decided` : "Nothing here asks for a decision.";
    list.draw();
    if (current) facts();
  }

  let hiding = 0;
  function say(text, offersUndo = false) {
    by("spoken").textContent = text;
    const toast = by("toast");
    toast.replaceChildren(make("span", {}, text), offersUndo ? make("button", { type: "button", class: "plain", on: { click: () => undo() } }, "Undo") : "");
    toast.hidden = false;
    clearTimeout(hiding);
    hiding = setTimeout(() => { toast.hidden = true; }, 10000);
  }
  saving.complain = (text) => { say(text); after(); };

  by("advance").checked = remembered("advance", "on") === "on";
  by("advance").addEventListener("change", () => remember("advance", by("advance").checked ? "on" : "off"));
  listen({ list, viewer, choose, decide, undo });

  const wanted = new URLSearchParams(location.hash.slice(1)).get("image");
  asked = wanted && known.entries.find((one) => one.name === wanted);
  choose(asked || list.order.find((one) => list.waits(one)) || list.order[0] || known.entries[0]);
  if (!known.entries.length) by("panel").textContent = "There are no images here.";
  desk.dataset.ready = "true";
}
