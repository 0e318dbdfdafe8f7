/**
 * Numbers that name their rows become buttons; each opens what it rests on: arms, condition, n,
 * commit, weights, the command to repeat, and a link to the explorer with that selection.
 * Without this script, or in a browser without popovers, the numbers stay plain text.
 */
(function () {
  "use strict";
  const RESULTS = new URL("../notebooks/09_results.html", document.currentScript.src);
  const MOST = 3;

  function make(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  const some = (names) =>
    names.slice(0, MOST).join("; ") + (names.length > MOST ? `; and ${names.length - MOST} more` : "");

  /** The explorer with the rows of a number, as its own links are written. */
  function address({ experiment, metrics, conditions, arms }) {
    const condition = conditions.length === 1 ? conditions[0] : "*";
    const query = new URLSearchParams({ experiment, metric: metrics[0], condition });
    for (const arm of arms) query.append("arm", arm);
    return `${RESULTS}#explorer?${query}`;
  }

  function facts(rows) {
    const weights = rows.weights ? some(rows.weights.split(", ")) : "none";
    return [
      ["Experiment", rows.experiment], ["Arms", some(rows.arms)], ["Condition", some(rows.conditions)],
      ["Metric", some(rows.metrics)], ["Rows", `${rows.n_rows}, n = ${rows.n_subjects} subjects`],
      ["Recorded", rows.recorded], ["Commit", some(rows.commit.split(", "))], ["Device", rows.device],
      ["Weights", weights],
    ];
  }

  function card(rows, id) {
    const link = make("a", { href: address(rows) }, "These rows in the explorer");
    const list = make("dl", {}, ...facts(rows).flatMap(([name, text]) => [
      make("dt", {}, name), make("dd", {}, text)]));
    const made = make("div", { id, className: "medil-rows" }, list,
      make("p", {}, "Repeat: ", make("code", {}, rows.command)),
      make("p", {}, link));
    link.addEventListener("click", () => made.hidePopover()); // the explorer may be on this page
    made.popover = "auto";
    made.setAttribute("role", "dialog");
    made.setAttribute("aria-label", "Where this number comes from");
    return made;
  }

  /** A bracket before a number and marks behind it stay on its line. */
  function bind(span) {
    const [before, after] = [span.previousSibling, span.nextSibling];
    const opening = before instanceof Text ? before.data.match(/[(\[]*$/)[0] : "";
    const closing = after instanceof Text ? after.data.match(/^[\])%.,;:]*/)[0] : "";
    if (opening) before.deleteData(before.length - opening.length, opening.length);
    if (closing) after.deleteData(0, closing.length);
    span.prepend(opening);
    span.append(closing);
  }

  function open(span, number) {
    const rows = JSON.parse(span.dataset.rows), id = `medil-rows-${number}`;
    const button = make("button", { type: "button", className: "medil-number", title: "Where from?" },
      ...span.childNodes);
    const popover = card(rows, id);
    button.popoverTargetElement = popover;
    span.replaceChildren(button);
    bind(span);
    document.body.append(popover);
  }

  if ("popover" in HTMLElement.prototype) {
    const start = () => document.querySelectorAll("span[data-rows]").forEach(open);
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
    else start();
  }
})();
