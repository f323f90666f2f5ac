"use strict";
const at = (id) => document.getElementById(id);
let image = null, texts = false;

fetch("/about").then((r) => r.json()).then((about) => {
  texts = about.texts;
  at("how").textContent = texts
    ? "NAME=TEXT, for example okapi=a forest giraffe with striped legs"
    : `NAME: attribute=number, ... with all of ${about.attributes.slice(0, 12).join(", ")}` +
      (about.attributes.length > 12 ? ` and ${about.attributes.length - 12} more` : "");
  at("heatmap").checked = about.attention;
  at("heatmap").disabled = !about.attention;
  document.body.dataset.ready = "yes";
});

function take(file) {
  if (!file) return;
  const reader = new FileReader();
  reader.onload = () => {
    image = reader.result;
    at("shown").src = image;
    at("shown").hidden = false;
    at("go").disabled = false;
  };
  reader.readAsDataURL(file);
}

function newClasses() {
  const found = Object.create(null);
  for (const line of at("new").value.split("\n").map((l) => l.trim()).filter(Boolean)) {
    if (texts) {
      const [name, ...rest] = line.split("=");
      (found[name.trim()] ??= []).push(rest.join("=").trim() || name.trim());
    } else {
      const [name, ...rest] = line.split(":");
      found[name.trim()] = Object.fromEntries(rest.join(":").split(",").filter((p) => p.trim()).map((pair) => {
        const [key, value] = pair.split("=").map((p) => p.trim());
        return [key, Number(value)];
      }));
    }
  }
  return found;
}

async function recognise() {
  at("error").textContent = at("said").textContent = "";
  at("results").replaceChildren();
  at("go").disabled = true;
  const added = newClasses(), any = Object.keys(added).length > 0;
  const ask = (heatmap) => fetch("/predict", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ image, new: added, beside: any ? at("beside").value : "", classes: at("classes").value, heatmap }),
  });
  try {
    const answer = await ask(at("heatmap").checked);
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    at("said").textContent = found.classes;
    for (const row of found.predictions) {
      const item = document.createElement("li");
      if (row.heatmap) {
        const map = document.createElement("img");
        map.src = row.heatmap;
        map.alt = `where ${row.class} was looked for`;
        item.append(map);
      }
      const name = document.createElement("div");
      name.textContent = `${row.class} ${row.score.toFixed(3)} `;
      const kind = document.createElement("span");
      kind.className = "kind";
      kind.textContent = row.kind;
      name.append(kind);
      item.append(name);
      at("results").append(item);
    }
    document.body.dataset.done = "yes";
  } catch (problem) {
    at("error").textContent = problem.message;
  }
  at("go").disabled = false;
}

at("file").addEventListener("change", (e) => take(e.target.files[0]));
at("go").addEventListener("click", recognise);
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (e) => {
    e.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(e.dataTransfer.files[0]);
  });
}
