// The answers to be ranked. props.value: {task, answers, order, tied, reasons, bad, cast, rewards}.
// `order` holds places in `answers`, best first; `tied[place]` says that a place is as good as the one above it;
// `reasons[place]` is the criterion that puts the one above before it. Once the vote is cast, `rewards` are known.
const list = element.querySelector("ol");
const bad = element.querySelector(".all-bad");
const status = element.querySelector("[role=status]");
const CRITERIA = ["helpful", "honest", "harmless"];
let dragged = null;

function draw() {
  const ballot = props.value;
  const cast = Boolean(ballot?.cast);
  element.querySelector(".ballot").hidden = !ballot;
  if (!ballot) return list.replaceChildren();
  const focused = document.activeElement?.closest?.("li")?.dataset.answer;
  const button = document.activeElement?.dataset?.does;
  list.replaceChildren(...ballot.order.map((answer, place) => item(ballot, answer, place, cast)));
  bad.setAttribute("aria-pressed", String(ballot.bad));
  bad.disabled = cast;
  const again = focused && list.querySelector(`li[data-answer="${focused}"]`);
  if (again) ((button && again.querySelector(`[data-does="${button}"]:enabled`)) || again.querySelector("article")).focus();
}

function item(ballot, answer, place, cast) {
  const item = document.createElement("li");
  item.dataset.answer = answer;
  if (place) item.append(between(ballot, place, cast));
  const card = make("article", "card");
  card.tabIndex = 0;
  card.draggable = !cast;
  const rank = rankOf(ballot, place);
  card.setAttribute("aria-label", `Place ${rank}`);
  card.append(make("span", "rank", String(rank)), make("p", "text", ballot.answers[answer]));
  if (!cast) card.append(moving(ballot, place));
  else if (ballot.rewards) card.append(verdict(ballot, answer));
  card.addEventListener("keydown", (event) => keys(event, place));
  card.addEventListener("dragstart", (event) => {
    dragged = place;
    event.dataTransfer.effectAllowed = "move";
  });
  card.addEventListener("dragover", (event) => {
    if (dragged !== null) event.preventDefault();
  });
  card.addEventListener("drop", (event) => {
    event.preventDefault();
    if (dragged !== null) move(dragged, place);
    dragged = null;
  });
  item.append(card);
  return item;
}

// Between two answers: whether they are as good as each other, or else what decided.
function between(ballot, place, cast) {
  const row = make("div", "between");
  const tie = make("button", "tie", "As good as the one above");
  tie.type = "button";
  tie.dataset.does = "tie";
  tie.disabled = cast;
  tie.setAttribute("aria-pressed", String(ballot.tied[place]));
  tie.addEventListener("click", () => toggleTie(place));
  row.append(tie);
  if (!ballot.tied[place] && !ballot.bad) {
    const group = make("span", "reasons", "The one above is more ");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Why the one above is better");
    for (const criterion of CRITERIA) {
      const button = make("button", "reason", criterion);
      button.type = "button";
      button.dataset.does = criterion;
      button.disabled = cast;
      button.setAttribute("aria-pressed", String(ballot.reasons[place] === criterion));
      button.addEventListener("click", () => reason(place, criterion));
      group.append(button);
    }
    row.append(group);
  }
  return row;
}

function moving(ballot, place) {
  const buttons = make("div", "moving");
  for (const [does, sign, to] of [["up", "\u2191", place - 1], ["down", "\u2193", place + 1]]) {
    const button = make("button", does, sign);
    button.type = "button";
    button.dataset.does = does;
    button.disabled = to < 0 || to >= ballot.order.length;
    button.setAttribute("aria-label", `Move ${does}`);
    button.title = `Move ${does}`;
    button.addEventListener("click", () => move(place, to));
    buttons.append(button);
  }
  return buttons;
}

function verdict(ballot, answer) {
  const reward = ballot.rewards[answer];
  const rank = 1 + ballot.rewards.filter((other) => other > reward).length;
  const number = Math.abs(reward).toFixed(2);
  return make("p", "verdict", `Reward ${reward < 0 ? "\u2212" : "+"}${number}: the reward model puts it at place ${rank}.`);
}

function rankOf(ballot, place) {
  let rank = 1;
  for (let at = 1; at <= place; at++) if (!ballot.tied[at]) rank = at + 1;
  return ballot.bad ? 1 : rank;
}

function keys(event, place) {
  const { order, cast } = props.value;
  if (cast || event.target !== event.currentTarget) return;
  const digit = Number(event.key);
  if (event.key === "ArrowUp" && place > 0) move(place, place - 1);
  else if (event.key === "ArrowDown" && place + 1 < order.length) move(place, place + 1);
  else if (event.key === "=" && place > 0) toggleTie(place);
  else if (digit >= 1 && digit <= order.length) move(place, digit - 1);
  else return;
  event.preventDefault();
}

function move(from, to) {
  const order = [...props.value.order];
  const [answer] = order.splice(from, 1);
  order.splice(to, 0, answer);
  // What was said of two neighbours does not hold for others.
  change({ order, reasons: {} });
  status.textContent = `Moved to place ${rankOf(props.value, to)}`;
}

function toggleTie(place) {
  const tied = props.value.tied.map((value, at) => (at === place ? !value : value));
  change({ tied });
  status.textContent = tied[place] ? "As good as the one above" : "Worse than the one above";
}

function reason(place, criterion) {
  const reasons = { ...props.value.reasons };
  if (reasons[place] === criterion) delete reasons[place];
  else reasons[place] = criterion;
  change({ reasons });
}

function change(parts) {
  props.value = { ...props.value, ...parts };
  draw();
}

function make(kind, name, text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

bad.addEventListener("click", () => change({ bad: !props.value.bad }));
watch("value", draw);
draw();
