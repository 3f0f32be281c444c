// What this browser has asked, newest first, as {link, time}; a click asks it again.
const list = element.querySelector("ol");

function draw() {
  list.replaceChildren(...(props.value ?? []).map(item));
}

function item({ link, time }) {
  const query = new URLSearchParams(link);
  const button = document.createElement("button");
  button.type = "button";
  button.append(
    words("asked", query.get("prompt")),
    words("seed", `seed ${query.get("seed")}`),
    words("when", new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })),
  );
  button.addEventListener("click", () => trigger("select", { query: Object.fromEntries(query) }));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function words(name, text) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}

watch("value", draw);
draw();
