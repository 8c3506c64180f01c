const specs = JSON.parse(document.getElementById("specs").textContent);
const options = {
  renderer: "svg",
  actions: false,
  defaultStyle: false,
  ast: true,
  tooltip: { disableDefaultStyle: true },
};
// One chart after the other, so that the page can be read and scrolled meanwhile.
const drawn = async () => {
  for (const [id, spec] of Object.entries(specs)) {
    const place = document.getElementById(id);
    await vegaEmbed(place, spec, options).catch((error) => {
      place.textContent = "This chart could not be drawn (" + error.message + "). Its figures are in the table below.";
    });
    await new Promise((next) => setTimeout(next));
  }
  document.documentElement.dataset.drawn = "all";
};

// What is unknown stays at the end, whichever way a table is sorted.
const order = (column, up) => (one, other) => {
  const [left, right] = [one.cells[column], other.cells[column]].map((cell) => cell.dataset.value ?? cell.textContent);
  if (left === "" || right === "") return (left === "") - (right === "");
  const known = one.cells[column].dataset.value === undefined ? left.localeCompare(right) : left - right;
  return up ? known : -known;
};
for (const table of document.querySelectorAll("table.long")) {
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const sorted = head.getAttribute("aria-sort") === first ? second : first;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sorted);
      const rows = [...table.tBodies[0].rows];
      table.tBodies[0].append(...rows.sort(order(head.cellIndex, sorted === "ascending")));
    });
  }
}
for (const tool of document.querySelectorAll(".search")) {
  const [field, told] = [tool.querySelector("input"), tool.querySelector("[role=status]")];
  const items = [...document.getElementById(tool.dataset.of).children];
  const texts = items.map((item) => item.textContent.toLowerCase());
  const all = told.textContent;
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    items.forEach((item, nth) => {
      item.hidden = !words.every((word) => texts[nth].includes(word));
      shown += !item.hidden;
    });
    told.textContent = words.length ? shown + " of " + all : all;
  });
  tool.hidden = false;
}
drawn();
