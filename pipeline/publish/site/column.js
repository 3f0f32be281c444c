// One stage on the page: its answer, how that ended, and its reward. Whatever was written is shown as text.

const ENDINGS = {
  loading: "Loading",
  idle: "",
  waiting: "Waiting",
  writing: "Writing",
  scoring: "Being scored",
  stopped: "Stopped by itself",
  cut: "Cut at the limit",
  halted: "Stopped by you",
  failed: "Failed",
};
const ASIDES = { loading: "Its model is on the way.", idle: "Its answer will stand here." };
const BUSY = ["waiting", "writing", "scoring"];
const FINISHED = ["stopped", "cut"];
const DASH = "\u2013";
const MINUS = "\u2212";
// Enough of a long prompt to see that the base model carries on from it.
const GIVEN_CHARACTERS = 160;
// Hidden text keeps the room of a full answer: some five characters a token.
const CHARACTERS_PER_TOKEN = 5;
const FILLER = "answer ";

export class Column {
  constructor(stage, { scale, limit }) {
    this.stage = stage;
    this.scale = scale;
    this.section = document.querySelector(`.stage.${stage}`);
    this.section.append(document.querySelector("#parts").content.cloneNode(true));
    this.lane = document.querySelector(`.lane.${stage}`);
    this.lane.append(document.querySelector("#line").content.cloneNode(true));
    this.part(".room").textContent = FILLER.repeat((limit * CHARACTERS_PER_TOKEN) / FILLER.length);
    for (const zero of [this.part(".zero"), this.lane.querySelector(".zero")]) zero.style.left = percent(0, scale);
    this.show({ state: "loading" });
  }

  part(selector) {
    return this.section.querySelector(selector);
  }

  get busy() {
    return BUSY.includes(this.view.state);
  }

  // Show an answer at one moment; what is not named is not there yet.
  show(view) {
    const { state, prompt = "", text = "", tokens = [], seconds, reward = null, error = "" } = view;
    const nothing = FINISHED.includes(state) && !text.trim() ? "It wrote nothing." : "";
    this.view = view;
    this.section.dataset.state = state;
    this.section.setAttribute("aria-busy", this.busy);
    this.part(".given").textContent = this.stage === "base" ? shortened(prompt) : "";
    this.part(".written").textContent = text;
    this.part(".caret").hidden = !["waiting", "writing"].includes(state);
    this.part(".aside").textContent = ASIDES[state] ?? nothing;
    this.part(".error").textContent = error && `This column failed: ${error}`;
    this.part(".how > span").textContent = ENDINGS[state];
    this.part(".how use").setAttribute("href", `#${state}`);
    this.part(".count").textContent = tokens.length ? `${tokens.length} token${tokens.length === 1 ? "" : "s"}` : "";
    this.part(".speed").hidden = !tokens.length;
    this.part(".speed span").textContent = Math.round(tokens.length / seconds);
    this.showReward(reward);
  }

  // On the family's fixed scale, in the column and on its line under the columns.
  showReward(reward) {
    const [low, high] = this.scale;
    const [bar, number] = [this.part(".bar"), this.part(".reward > :last-child")];
    const [stem, mark, label] = this.lane.querySelectorAll(".stem, .mark, b");
    const none = reward === null;
    for (const part of [bar, stem, mark, label]) part.hidden = none;
    number.className = none ? "none" : "number";
    number.textContent = none ? DASH : signed(reward);
    this.part(".track").setAttribute("aria-label", none ? "No reward" : `${signed(reward)} of ${low} to ${high}`);
    const [from, to] = [Math.min(0, reward), Math.max(0, reward)].map((end) => place(end, this.scale));
    for (const part of [bar, stem]) Object.assign(part.style, { left: `${from}%`, width: `${to - from}%` });
    for (const part of [mark, label]) part.style.left = percent(reward, this.scale);
    label.className = reward < 0 ? "left" : "right";
    label.textContent = number.textContent;
  }
}

function shortened(prompt) {
  const characters = [...prompt];
  return characters.length > GIVEN_CHARACTERS ? `\u2026${characters.slice(-GIVEN_CHARACTERS).join("")}` : prompt;
}

// Where a reward lies on the scale, from 0 to 100; what lies outside stands at the end.
function place(reward, [low, high]) {
  return (100 * (Math.min(Math.max(reward, low), high) - low)) / (high - low);
}

export function percent(reward, scale) {
  return `${place(reward, scale)}%`;
}

export function signed(reward) {
  return `${reward < 0 ? MINUS : "+"}${Math.abs(reward).toFixed(2)}`;
}
