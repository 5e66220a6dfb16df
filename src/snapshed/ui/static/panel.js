// What is known about the image on view, what was decided about it, and the buttons that decide.

import { by, lastPart, make, many, number, sign } from "./dom.js";

const ORIGINS = { image: "set for this image", manifest: "set for this snapshot", default: "none was set" };

const SAYS = {
  changed: "looks different from its base",
  added: "is new: the base does not have it",
  removed: "is gone: only the base has it",
  renamed: "is the same image under another name",
  errored: "could not be compared",
  skipped: "was left out of this partial upload",
  unchanged: "looks like its base",
  images: "has nothing to be compared with",
};

export function draw(one, decision, group, acts) {
  const facts = [];
  const fact = (label, ...value) => facts.push(make("div", {}, make("dt", {}, label), make("dd", {}, ...value)));
  if (one.pixels !== undefined && one.total) fact("Changed pixels", `${number(one.pixels)} of ${number(one.total)}`);
  if (one.share) fact("Share", one.percent);
  if (one.threshold !== undefined) fact("Threshold", one.threshold ? `${one.threshold} ` : "any pixel ", make("span", { class: "help" }, `(${ORIGINS[one.from] ?? "unknown"})`));
  if (one.passes !== undefined) fact("Would pass at", make("code", {}, String(Number(one.passes.toPrecision(3)) < one.passes ? roundUp(one.passes) : Number(one.passes.toPrecision(3)))));
  if (one.was) fact("Was called", make("code", {}, one.was));
  if (one.group) fact("Group", one.group);
  by("panel").replaceChildren(...[
    make("h2", { class: "title" }, one.title ?? lastPart(one.name)),
    make("p", { class: "path" }, one.name),
    make("p", { class: `state is-${one.state}` }, sign(one.state), make("span", {}, make("b", {}, one.state === "images" ? "Uploaded" : `${one.state[0].toUpperCase()}${one.state.slice(1)}`), `: ${SAYS[one.state]}`)),
    one.why ? make("p", { class: "why" }, `${one.why[0].toUpperCase()}${one.why.slice(1)}.`) : null,
    one.problem ? make("p", { class: "notice tone-bad" }, make("span", {}, one.problem, one.detail ? ` (${one.detail})` : "")) : null,
    ...deciding(one, decision, group, acts),
    facts.length ? make("dl", { class: "numbers" }, ...facts) : null,
    one.regions ? regions(one, acts) : null,
    one.about ? make("p", { class: "help" }, one.about) : null,
    one.tags ? make("ul", { class: "labels", "aria-label": "Labels" }, ...one.tags.map((tag) => make("li", {}, tag))) : null,
    make("div", { id: "more" }),
  ].filter(Boolean));
}

function deciding(one, decision, group, acts) {
  const lines = [];
  if (decision) {
    const word = decision.is === "approved" ? "Approved" : "Rejected";
    lines.push(make("p", { class: `said is-${decision.is}` }, sign(decision.is === "approved" ? "good" : "reject"), make("span", {}, make("b", {}, word), ` by ${decision.by}, `, make("time", { datetime: decision.at }, decision.when), decision.own ? "" : ", with the whole snapshot")));
  } else if (one.needed) lines.push(make("p", { class: "said" }, "Nobody has decided about this yet."));
  if (!one.decidable || !acts.may) return lines;
  const button = (label, name, key, act, kind = "") => make("button", { type: "button", class: kind, title: `${label} (${key})`, on: { click: act } }, name ? sign(name) : null, label);
  lines.push(make("div", { class: "decide" },
    button("Approve", "good", "Y", () => acts.decide("approved"), "approve"),
    button("Reject", "reject", "N", () => acts.decide("rejected"), "reject"),
    decision?.own ? button("Undo", null, "U", () => acts.undo(), "plain") : null));
  if (group > 1) {
    lines.push(make("div", { class: "alike" }, make("p", {}, `The same change is in ${many(group, "image")}.`),
      button(`Approve all ${number(group)}`, null, "Shift Y", () => acts.decide("approved", true)),
      button(`Reject all ${number(group)}`, null, "Shift N", () => acts.decide("rejected", true), "reject")));
  }
  return lines;
}

function regions(one, acts) {
  const most = 40;
  const line = ([left, top, width, height], index) => make("li", {}, make("button", { type: "button", class: "plain", on: { click: () => acts.look(index) } }, `${number(width)} × ${number(height)} at ${number(left)}, ${number(top)}`));
  return make("details", { class: "regions", open: one.regions.length <= 6 },
    make("summary", {}, `${many(one.regions.length, "changed region")}`),
    make("ol", {}, ...one.regions.slice(0, most).map(line)));
}

// A threshold that is rounded down would not let the image pass.
const roundUp = (share) => {
  const step = 10 ** (Math.floor(Math.log10(share)) - 2);
  return Number((Math.ceil(share / step) * step).toPrecision(3));
};

// What is asked for only when somebody looks: where this image appeared lately, and what its bytes cost.
export function drawPast(one, past, number_, home) {
  const ours = one.head?.[0] ?? one.base?.[0];
  const strip = past.strip.slice().reverse().map((at) => make("a", {
    class: `is-${at.state}`, href: `/snapshots/${at.number}#image=${encodeURIComponent(one.name)}`, "aria-current": at.number === number_ ? "true" : null,
    title: `#${at.number}, ${at.when}: ${at.state}${at.percent ? ` ${at.percent}` : ""}${at.decision ? `, ${at.decision}` : ""}`,
    "aria-label": `Snapshot ${at.number}: ${at.state}${at.decision ? `, ${at.decision}` : ""}`,
  }, sign(at.state)));
  const kept = past.kept[ours];
  by("more").replaceChildren(...[
    strip.length ? make("section", {}, make("h3", {}, "Lately"), make("div", { class: "strip" }, ...strip),
      make("p", { class: "help" }, make("a", { href: `/history?${new URLSearchParams({ ...home, name: one.name })}` }, "This image over time"))) : null,
    kept ? make("section", {}, make("h3", {}, "In the store"), make("p", { class: "help" }, `${kept.bytes}, named by ${many(kept.snapshots, "snapshot")}${kept.names > 1 ? ` under ${number(kept.names)} names` : ""}. `, make("code", {}, ours.slice(0, 12)))) : null,
  ].filter(Boolean));
}
