// The page: what a person asks, and the three columns that answer.

import { Column, percent, signed } from "./column.js";
import { bestDevice, openFamily } from "./models.js";

const STAGES = ["base", "sft", "rlhf"];
const MEGABYTE = 1e6;
const MILLISECONDS_BETWEEN_VIEWS = 50; // faster than anyone reads: drawing takes time from the models
const ELSEWHERE = { wasm: "", webgpu: ". Try the processor, under \u201cRuns on\u201d." };
const part = (selector) => document.querySelector(selector);
const form = part("form");
const prompt = part("#prompt textarea");

// The address may name what the models run on.
part("#device").value = new URL(location).searchParams.get("device");
const device = part("#device").value || (await bestDevice());
const family = await openFamily({ device, onProgress: showProgress });
const columns = STAGES.map((stage) => new Column(stage, family));
let turn = 0; // how often somebody has asked or stopped: what belongs to an earlier turn shows nothing more

function showProgress({ loaded, total }) {
  Object.assign(part("progress"), { max: total, value: loaded });
  part("#progress b").textContent = loaded < total ? "Loading the models" : "Starting the models";
  part("#progress span").textContent = `${(loaded / MEGABYTE).toFixed(1)} of ${(total / MEGABYTE).toFixed(1)} MB`;
}

function say(message, look = "") {
  const line = document.createElement("p");
  line.className = `prose ${look}`;
  line.append(message);
  part("#notice").replaceChildren(line);
  return line;
}

function ask() {
  const problem = unreadable(prompt.value);
  if (problem) return say(problem, "problem");
  const settings = { temperature: part("#temperature").valueAsNumber, seed: part("#seed").valueAsNumber };
  turn += 1;
  part("[role=log]").replaceChildren();
  for (const column of columns) fill(column, prompt.value, settings, turn);
}

function unreadable(text) {
  const characters = [...text].length;
  if (!text.trim()) return "The prompt is empty; write a question or a sentence.";
  if (characters > family.promptLimit) {
    return `The prompt has ${characters} characters; at most ${family.promptLimit} fit, shorten it.`;
  }
}

// One column, from empty to scored. What goes wrong is shown in it: the others must not suffer.
async function fill(column, prompt, settings, mine) {
  const model = family.models[column.stage];
  let view = { state: "waiting", prompt };
  column.show(view);
  try {
    await model.ready;
    const start = performance.now();
    let shown = 0;
    let ended;
    for await (const { text, tokens, stopped } of model.answer(prompt, settings)) {
      if (mine !== turn) return;
      const now = performance.now();
      ended = stopped ? "stopped" : "cut";
      view = { state: "writing", prompt, text, tokens, seconds: (now - start) / 1000 };
      if (now - shown < MILLISECONDS_BETWEEN_VIEWS) continue;
      column.show(view);
      shown = now;
    }
    column.show({ ...view, state: "scoring" });
    const reward = await score(prompt, view.text, ended === "stopped");
    if (mine !== turn) return;
    column.show({ ...view, state: ended, reward });
    announce(column);
  } catch (error) {
    if (mine === turn) column.show({ ...view, state: "failed", error: error.message });
  }
}

// Without a reward model the answers are still worth reading.
async function score(prompt, answer, finished) {
  try {
    return await family.models.reward.score(prompt, answer, finished);
  } catch (error) {
    say(`There are no rewards: ${error.message}`, "problem");
    return null;
  }
}

function stop() {
  turn += 1;
  for (const column of columns.filter(({ busy }) => busy)) {
    column.show({ ...column.view, state: "halted" });
    announce(column);
  }
}

// A screen reader hears each answer once, when it is whole.
function announce({ section }) {
  const line = document.createElement("p");
  const parts = ["h2", ".written", ".how", ".reward"].map((name) => section.querySelector(name).innerText.trim());
  line.textContent = parts.filter(Boolean).join(". ");
  part("[role=log]").append(line);
}

function offer({ category, prompts }, index) {
  const chip = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "category", value: category });
  chip.className = "chip";
  chip.append(radio, category);
  part("#presets .categories").append(chip);
  const buttons = prompts.map((preset) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: preset.prompt });
    button.addEventListener("click", () => take(preset));
    return button;
  });
  radio.addEventListener("change", () => part("#presets .prompts").replaceChildren(...buttons));
  if (index === 0) radio.click();
}

function take(preset) {
  prompt.value = preset.prompt;
  const title = Object.assign(document.createElement("b"), { textContent: "What to look for" });
  say(preset.look_for).prepend(title);
  form.requestSubmit();
}

// From now on the page opens without a network, where the browser can keep it.
async function keep() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register("offline.js");
  await Promise.all([navigator.serviceWorker.ready, family.kept]);
  part("#offline").textContent = "The page is kept here, and opens without a network from now on.";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
part("#stop").addEventListener("click", stop);
prompt.addEventListener("input", () => say(""));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target !== prompt) return;
  event.preventDefault();
  form.requestSubmit();
});
part("#device").value = device;
part("#device [value=webgpu]").disabled = !navigator.gpu;
part("#device").addEventListener("change", ({ target }) => {
  location.search = new URLSearchParams({ device: target.value });
});

part("#family").textContent = `${family.name} family, ${(family.parameters / 1e6).toFixed(1)} million parameters.`;
part(".axis .low").prepend(signed(family.scale[0]));
part(".axis .high").append(signed(family.scale[1]));
part(".axis .nought").style.left = percent(0, family.scale);
family.presets.forEach(offer);
for (const column of columns) {
  family.models[column.stage].ready.then(
    () => column.view.state === "loading" && column.show({ state: "idle" }),
    ({ message }) => column.show({ state: "failed", error: `${message}${ELSEWHERE[device]}` }),
  );
}
await Promise.allSettled(Object.values(family.models).map(({ ready }) => ready));
part("#progress").hidden = true;
await keep();
