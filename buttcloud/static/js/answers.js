// What was asked of a pub, and its answers: forms without leaving the page, and a list that fills itself.

import { ask, parse } from "./pieces.js";

const KEPT = 10;
const LOOK_AGAIN = 3000;
const answers = document.getElementById("answers");

export function show(html) {
  const fresh = parse(html);
  const old = document.getElementById(fresh.id);
  // A late "waiting" must not cover an answer that is already there.
  if (old && "finished" in old.dataset) return;
  if (old) old.replaceWith(fresh);
  else answers.prepend(fresh);
  while (answers.children.length > KEPT) answers.lastElementChild.remove();
}

async function submit(form) {
  const button = form.querySelector("button:not([type])");
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  try {
    const { status, html } = await ask(form.action, { method: "POST", body: new FormData(form) });
    if (status === 201) {
      show(html);
      answers.firstElementChild.scrollIntoView({ block: "nearest" });
      form.reset();
      clearErrors(form);
    } else if (status === 422) refuse(form, html);
    else throw new Error(`status ${status}`);
  } catch {
    // It may have arrived all the same, so it is not sent again: a follow can't be taken back.
    complain(form, "We can't tell whether this arrived. Look at the answers, then try again.");
  } finally {
    button.ariaBusy = "false";
  }
}

function refuse(form, html) {
  const fresh = parse(html);
  (form.closest("details") ?? form).replaceWith(fresh);
  (fresh.querySelector("[aria-invalid]") ?? fresh.querySelector("button")).focus();
}

function complain(form, text) {
  clearErrors(form);
  const list = parse('<ul class="errorlist" role="alert"><li></li></ul>');
  list.firstElementChild.textContent = text;
  form.prepend(list);
}

function clearErrors(form) {
  for (const list of form.querySelectorAll(".errorlist")) list.remove();
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

// The websocket brings answers at once; this finds those that it missed.
async function lookAgain() {
  for (const row of answers.querySelectorAll(".answer:not([data-finished])")) {
    try {
      const { status, html } = await ask(row.dataset.url);
      if (status === 200) show(html);
    } catch {
      break; // No network: the next round tries again.
    }
  }
  setTimeout(lookAgain, LOOK_AGAIN);
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-ask]")) return;
  event.preventDefault();
  submit(event.target);
});
setTimeout(lookAgain, LOOK_AGAIN);
