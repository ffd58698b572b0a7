// Gives a page with long tables one bar to search and filter them: a text, and a choice for each
// column that has few different entries. The choices stand in the address, so they can be linked:
// operators.html?q=cholesky&how=rule
"use strict";

const LONG = 25; // Rows from which on a table gets a bar.
const FEW = 80; // Different entries up to which a column can be chosen from.

function cellText(row, column) {
  const cell = row.cells[column];
  return cell ? cell.textContent.trim().replace(/\s+/g, " ") : "";
}

// Entries are grouped by how they begin: "right: grad, vjp" counts as right.
function kindOf(text) {
  if (text.length <= 24) return text;
  const start = /^(right|in a loop|WRONG)\b/.exec(text);
  if (start) return start[1];
  return /(Error|Warning)\b/.test(text) ? "error" : null;
}

function bodyRows(table) {
  return table.tBodies.length ? Array.from(table.tBodies[0].rows) : [];
}

function columnsOf(tables) {
  const titles = new Map();
  for (const table of tables) {
    Array.from(table.tHead.rows[0].cells).forEach((cell, index) => {
      const title = cell.textContent.trim();
      if (!titles.has(title)) titles.set(title, new Map());
      titles.get(title).set(table, index);
    });
  }
  return titles;
}

function choicesOf(places, tables) {
  const kinds = new Set();
  for (const [table, column] of places) {
    for (const row of bodyRows(table)) {
      const kind = kindOf(cellText(row, column));
      if (kind === null) return null;
      kinds.add(kind);
    }
  }
  return kinds.size >= 2 && kinds.size <= FEW ? Array.from(kinds).sort() : null;
}

function parameterName(title) {
  return title.toLowerCase().replace(/[^a-z0-9]+/g, "-");
}

function install() {
  const article = document.querySelector("article");
  if (!article) return;
  const tables = Array.from(article.querySelectorAll("table.docutils")).filter((t) => t.tHead);
  const long = tables.filter((table) => bodyRows(table).length >= LONG);
  if (!long.length) return;
  // Tables with the same columns as a long one are filtered with it; a summary isn't.
  const heads = new Set(long.map((table) => table.tHead.textContent.replace(/\s+/g, "")));
  const filtered = tables.filter((table) => heads.has(table.tHead.textContent.replace(/\s+/g, "")));

  const given = new URLSearchParams(window.location.search);
  const bar = document.createElement("div");
  bar.className = "table-filter";
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "Search these tables";
  search.setAttribute("aria-label", "Search these tables");
  search.value = given.get("q") || "";
  bar.append(search);
  const selects = [];
  for (const [title, places] of columnsOf(filtered)) {
    const choices = choicesOf(places, filtered);
    if (!title || !choices) continue;
    const select = document.createElement("select");
    select.setAttribute("aria-label", title);
    select.append(new Option(`${title}: all`, ""));
    for (const choice of choices) select.append(new Option(choice || "(none)", choice || "(none)"));
    select.value = given.get(parameterName(title)) || "";
    if (select.selectedIndex < 0) select.value = "";
    bar.append(select);
    selects.push({ select, places, title });
  }
  const count = document.createElement("output");
  bar.append(count);
  const first = filtered[0].closest("section section") || filtered[0].closest(".table-wrapper");
  (first || filtered[0]).before(bar);

  function passes(row, table, words) {
    for (const { select, places } of selects) {
      if (!select.value) continue;
      if (!places.has(table)) return false;
      if ((kindOf(cellText(row, places.get(table))) || "(none)") !== select.value) return false;
    }
    const text = row.textContent.toLowerCase();
    return words.every((word) => text.includes(word));
  }

  function update() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const active = words.length > 0 || selects.some(({ select }) => select.value);
    let shown = 0;
    let all = 0;
    for (const table of filtered) {
      let here = 0;
      for (const row of bodyRows(table)) {
        const pass = passes(row, table, words);
        row.classList.toggle("filtered-out", !pass);
        here += pass;
        all += 1;
      }
      shown += here;
      const section = table.closest("section section");
      if (section && section.querySelectorAll("table").length === 1) {
        section.classList.toggle("filtered-out", active && !here);
      }
    }
    count.textContent = active ? `${shown} of ${all} rows` : `${all} rows`;
    const address = new URL(window.location.href);
    address.search = "";
    if (search.value) address.searchParams.set("q", search.value);
    for (const { select, title } of selects) {
      if (select.value) address.searchParams.set(parameterName(title), select.value);
    }
    try {
      window.history.replaceState(null, "", address);
    } catch {
      // A browser may not allow that for a page that is a file.
    }
  }

  search.addEventListener("input", update);
  for (const { select } of selects) select.addEventListener("change", update);
  update();
}

install();
