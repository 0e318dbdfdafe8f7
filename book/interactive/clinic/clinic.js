/**
 * The failure clinic: a choice of names for every picture, and a count of right answers. Without
 * a script the answers unfold by themselves. Nothing is stored or sent.
 */
(function () {
  "use strict";

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  /** A form that asks what the picture is; `answered` hears whether the answer was right. */
  function ask(card, titles, number, answered) {
    const { fault } = card.dataset, id = `medil-card-${number}`, status = element("p");
    const choice = element("select", { id, required: true },
      element("option", { value: "", textContent: "Choose …" }),
      ...Object.entries(titles).map(([value, textContent]) => element("option", { value, textContent })));
    const button = element("button", { textContent: "Answer" });
    const form = element("form", {},
      element("label", { htmlFor: id, textContent: `What is picture ${number}?` }), choice, button);
    status.setAttribute("role", "status");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const right = choice.value === fault;
      choice.disabled = true;
      button.remove();
      card.querySelector(".medil-card-answer").open = true;
      status.textContent = `${right ? "Right" : "No"}: ${titles[fault]}. ${answered(right)}`;
    });
    card.querySelector(".medil-card-name").replaceWith(form, status);
  }

  for (const clinic of document.querySelectorAll(".medil-clinic")) {
    const titles = JSON.parse(clinic.dataset.options), count = { asked: 0, right: 0 };
    const answered = (right) => {
      count.asked += 1;
      count.right += Number(right);
      return `${count.right} of ${count.asked} so far.`;
    };
    clinic.querySelectorAll(".medil-card").forEach((card, n) => ask(card, titles, n + 1, answered));
  }
})();
