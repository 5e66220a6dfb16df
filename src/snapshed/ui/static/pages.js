// Adds keys, stepping, and the swipe to the page of a snapshot. Without it every pair is still there to see.

const root = document.documentElement;
const pairs = [...document.querySelectorAll(".pair")];
const by = (id) => document.getElementById(id);
const remembered = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
const remember = (name, value) => { try { localStorage.setItem(name, value); } catch { /* private windows may refuse */ } };

if (pairs.length > 0) start();

function start() {
  root.classList.add("scripted");
  const place = by("place");
  const keysOn = by("keys-on");
  const swipe = by("swipe");
  const links = new Map([...document.querySelectorAll(".index a")].map((link) => [link.hash.slice(1), link]));
  let current = pairs.findIndex((pair) => `#${pair.id}` === location.hash);

  function mark(index) {
    current = index;
    place.textContent = `${index + 1} of ${pairs.length}`;
    for (const [id, link] of links) {
      if (id === pairs[index].id) {
        link.setAttribute("aria-current", "true");
        const list = link.closest(".index");
        if (link.offsetTop < list.scrollTop || link.offsetTop > list.scrollTop + list.clientHeight - 40) list.scrollTop = link.offsetTop - 80;
      } else link.removeAttribute("aria-current");
    }
  }

  function go(step) {
    const index = Math.min(Math.max(current + step, 0), pairs.length - 1);
    mark(index);
    pairs[index].focus({ preventScroll: true });
    pairs[index].scrollIntoView({ block: "start" });
    history.replaceState(null, "", `#${pairs[index].id}`);
  }

  function show(view) {
    const choice = by(`view-${view}`);
    if (!choice) return;
    choice.checked = true;
    remember("snapshed-view", view);
    if (current >= 0) pairs[current].scrollIntoView({ block: "start", behavior: "instant" });
  }

  const keys = {
    j: () => go(1), k: () => go(-1),
    s: () => show("sides"), o: () => show("over"), w: () => show("swipe"),
    ArrowLeft: () => show("base"), ArrowRight: () => show("head"),
    "?": () => { const sheet = document.querySelector(".keys"); sheet.open = !sheet.open; },
    Escape: () => { document.querySelector(".keys").open = false; },
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || (!keysOn.checked && event.key !== "Escape")) return;
    const act = keys[event.key];
    if (!act) return;
    if (event.key.startsWith("Arrow") && event.target.closest("[role=region], pre")) return;
    if (event.key !== "Escape") event.preventDefault();
    act();
  });

  by("next").addEventListener("click", () => go(1));
  by("previous").addEventListener("click", () => go(-1));
  for (const [id, link] of links) link.addEventListener("click", () => mark(pairs.findIndex((pair) => pair.id === id)));
  for (const choice of document.querySelectorAll("input[name=view]")) {
    choice.addEventListener("change", () => remember("snapshed-view", choice.id.slice(5)));
  }

  keysOn.checked = remembered("snapshed-keys") !== "off";
  keysOn.addEventListener("change", () => remember("snapshed-keys", keysOn.checked ? "on" : "off"));

  const divide = (percent) => {
    swipe.value = percent;
    root.style.setProperty("--divide", `${percent}%`);
  };
  swipe.addEventListener("input", () => divide(swipe.value));
  document.addEventListener("pointermove", (event) => {
    const frame = by("view-swipe").checked && event.target.closest(".base .frame, .head .frame");
    if (!frame) return;
    const box = frame.getBoundingClientRect();
    divide(Math.min(Math.max((100 * (event.clientX - box.left)) / box.width, 0), 100).toFixed(1));
  });

  const view = remembered("snapshed-view");
  if (view) show(view);
  if (current >= 0) mark(current);
}
