// Decisions as they are taken: shown at once, sent one after another, taken back where the server refuses.

export class Saving {
  constructor(number, csrf, decisions, told) {
    this.number = number;
    this.csrf = csrf;
    this.decisions = decisions;
    this.told = told;
    this.taken = [];
    this.queue = Promise.resolve();
    this.waiting = 0;
    this.complain = () => {};
    addEventListener("beforeunload", (event) => { if (this.waiting) event.preventDefault(); });
  }

  decide(decision, members, alike) {
    const step = { names: members.map((one) => one.name), batch: null, before: members.map((one) => this.decisions[one.name]) };
    this.taken.push(step);
    for (const name of step.names) this.decisions[name] = { is: decision, by: "you", at: new Date().toISOString(), when: "just now", own: true };
    this.send(alike ? { decision, alike } : { decision, name: step.names[0] }, step);
  }

  // The last thing done here; or, where nothing was, what stands about the image on view.
  undo(one) {
    const step = this.taken.pop();
    if (step) {
      step.names.forEach((name, index) => { this.put(name, step.before[index]); });
      this.send(() => ({ decision: "undone", batch: step.batch }), null);
      return step;
    }
    if (!one || !this.decisions[one.name]?.own) return null;
    this.put(one.name, undefined);
    this.send({ decision: "undone", name: one.name }, null);
    return { names: [one.name] };
  }

  put(name, decision) {
    if (decision === undefined) delete this.decisions[name];
    else this.decisions[name] = decision;
  }

  send(fields, step) {
    this.waiting += 1;
    this.queue = this.queue.then(async () => {
      try {
        const body = new URLSearchParams({ csrf: this.csrf, answer: "json", ...(typeof fields === "function" ? fields() : fields) });
        const answer = await fetch(`/snapshots/${this.number}/images/decision`, { method: "POST", body });
        if (!answer.ok) throw new Error(answer.status === 404 ? "it is not here any more" : `the server answered ${answer.status}`);
        const known = await answer.json();
        if (step) step.batch = known.batch;
        this.waiting -= 1;
        // While more is on its way, what is shown is newer than what the server knows.
        if (this.waiting === 0) this.decisions = known.decisions;
        this.told(known);
      } catch (error) {
        this.waiting -= 1;
        if (step) {
          this.taken = this.taken.filter((one) => one !== step);
          step.names.forEach((name, index) => { this.put(name, step.before[index]); });
        }
        this.complain(`That was not saved: ${error.message}. Try again, or reload the page.`);
      }
    });
  }
}
