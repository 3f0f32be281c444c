// What holds on every tab. Runs once, when gradio has drawn the head of the page (`element`).

// Presentation mode: by the button, by ?present=1 in the address, and as this browser remembers it.
const REMEMBERED = "stagewise-presentation";
const switching = element.querySelector("#present");

function present(on) {
  document.body.classList.toggle("present", on);
  switching.setAttribute("aria-pressed", on);
}

function recall() {
  try {
    return localStorage.getItem(REMEMBERED);
  } catch {
    return null; // a browser that keeps nothing
  }
}

function remember(value) {
  try {
    localStorage.setItem(REMEMBERED, value);
  } catch {
    // The switch works all the same.
  }
}

present((new URL(location).searchParams.get("present") ?? recall()) === "1");
switching.addEventListener("click", () => {
  const on = !document.body.classList.contains("present");
  present(on);
  remember(on ? "1" : "0");
});

// The link before everything leads to the answers, or to whichever tab is open instead.
const visible = (part) => part.checkVisibility();
element.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  const part = [...document.querySelectorAll("#columns, [role=tabpanel]")].findLast(visible);
  part.tabIndex = -1;
  part.focus();
});

// Gradio's tabs know the mouse and the Tab key; these are the keys that a list of tabs has besides.
document.addEventListener("keydown", (event) => {
  const tab = event.target.closest("[role=tablist] > [role=tab]");
  if (!tab) return;
  const tabs = [...tab.parentElement.querySelectorAll("[role=tab]:enabled")];
  const here = tabs.indexOf(tab);
  const keys = { ArrowLeft: here - 1, ArrowRight: (here + 1) % tabs.length, Home: 0, End: -1 };
  if (!(event.key in keys)) return;
  event.preventDefault();
  const next = tabs.at(keys[event.key]);
  next.focus();
  next.click();
});

// Escape stops what is being written.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (document.querySelector(".stage[aria-busy=true]")) document.querySelector("#stop").click();
});

// A screen reader hears each answer once, when it is whole, and not every piece of it.
const log = element.querySelector("[role=log]");
const lines = []; // of each column the last one
let states = [];

function listen() {
  const stages = [...document.querySelectorAll("#columns .stage")];
  const now = stages.map((stage) => stage.dataset.state);
  stages.forEach((stage, index) => {
    if (now[index] === states[index]) return;
    const ended = ["stopped", "cut", "halted"].includes(now[index]);
    if (ended || now[index] === "waiting") lines[index]?.remove();
    if (!ended) return;
    const parts = ["h2", ".written", ".how", ".reward"].map((part) => stage.querySelector(part)?.innerText.trim());
    lines[index] = document.createElement("p");
    lines[index].textContent = parts.filter(Boolean).join(". ");
    log.append(lines[index]);
  });
  states = now;
}

function start() {
  const columns = document.querySelector("#columns");
  if (!columns) return requestAnimationFrame(start);
  new MutationObserver(listen).observe(columns, { childList: true, subtree: true });
}
start();
