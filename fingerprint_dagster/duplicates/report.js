"use strict";
// Everything shown comes from file names and texts of strangers: it is only ever set as text, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { contents, pairs, clusters, evidences, types } = data;
  const PAIRS_ON_A_PAGE = 25, CLUSTERS_ON_A_PAGE = 15, MEMBERS_SHOWN = 60;
  const VERDICTS = ["undecided", "same", "different"];
  const RELATIONS = {
    copy: ["are copies", "are copies"], part_of: ["left is a part of right", "parts"],
    contains: ["right is a part of left", "parts"], overlap: ["have a part in common", "overlaps"],
    suggestion: ["may be alike", "suggestions"],
  };
  const ORDERS = {
    sure: ["surest first", (a, b) => a.place - b.place],
    unsure: ["least sure first", (a, b) => b.place - a.place],
    name: ["by name", (a, b) => (a.words < b.words ? -1 : a.words > b.words ? 1 : a.place - b.place)],
    cluster: ["by cluster", (a, b) => (a.cluster || 1e9) - (b.cluster || 1e9) || a.place - b.place],
  };

  const C = { ID: 0, URI: 1, NAME: 2, FOLDER: 3, TYPE: 4, DIGEST: 5, FACTS: 6, LENGTH: 7, PREVIEW: 8, CLUSTER: 9, KEEP: 10 };
  const P = { ONE: 0, OTHER: 1, RELATION: 2, SCORE: 3, SURE: 4, VERDICT: 5, MATCHES: 6 };
  const M = { EVIDENCE: 0, SCORE: 1, RANGES: 2, BOXES: 3, WORDS: 4 };

  const rows = pairs.map((pair, place) => {
    const [one, other] = [contents[pair[P.ONE]], contents[pair[P.OTHER]]];
    return {
      pair, place, one, other, verdict: pair[P.VERDICT],
      words: [one, other].map((c) => `${c[C.FOLDER]}/${c[C.NAME]} ${c[C.ID]}`).join(" ").toLowerCase(),
      evidences: new Set(pair[P.MATCHES].map((match) => match[M.EVIDENCE])),
      cluster: Math.max(one[C.CLUSTER], other[C.CLUSTER]),
    };
  });

  // ---------------------------------------------------------------- decisions, kept where the browser lets them be

  const memory = `fingerprint decisions ${data.id}`;
  try {
    for (const [place, verdict] of JSON.parse(localStorage.getItem(memory) || "[]")) {
      if (rows[place] && VERDICTS[verdict]) rows[place].verdict = verdict;
    }
  } catch { /* no storage here: the export is what counts */ }
  let exported = true;
  const changed = () => rows.filter((row) => row.verdict !== row.pair[P.VERDICT]);

  function decide(row, verdict) {
    row.verdict = verdict;
    exported = false;
    try {
      localStorage.setItem(memory, JSON.stringify(changed().map((each) => [each.place, each.verdict])));
    } catch { /* as above */ }
    sayDecided();
  }

  function sayDecided() {
    const count = changed().length;
    at("decided").textContent = count ? `${count} decided here` : "";
    at("export").disabled = !count;
  }

  function save() {
    const decisions = changed().map((row) => ({
      one: row.one[C.ID], other: row.other[C.ID], one_digest: row.one[C.DIGEST], other_digest: row.other[C.DIGEST],
      verdict: VERDICTS[row.verdict],
    }));
    const text = JSON.stringify({ format: data.format, decisions }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "decisions.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    exported = true;
  }

  addEventListener("beforeunload", (event) => {
    if (!exported && changed().length) event.preventDefault();
  });

  // ---------------------------------------------------------------- making elements

  const at = (id) => document.getElementById(id);

  function make(name, className, ...children) {
    const element = document.createElement(name);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  // Names and texts may be written from right to left, or pretend to be: each stays within its own direction.
  const own = (text) => make("bdi", "", text);

  const previews = new Map();
  function preview(content) {
    const index = content[C.PREVIEW];
    if (index < 0) return null;
    const part = Math.floor(index / data.previews_in_a_part);
    if (!previews.has(part)) previews.set(part, JSON.parse(at(`previews-${part}`).textContent));
    return previews.get(part)[index % data.previews_in_a_part];
  }

  const seconds = (value) => {
    const whole = Math.round(value * 10) / 10;
    if (whole < 60) return `${whole} s`;
    const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), Math.floor(whole % 60)];
    const two = (number) => String(number).padStart(2, "0");
    return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
  };

  function where(content, range, box) {
    const places = [];
    if (range) {
      places.push(content[C.TYPE] === "text"
        ? `characters ${Math.round(range[0])} to ${Math.round(range[1])}`
        : `${seconds(range[0])} to ${seconds(range[1])}`);
    }
    if (box && box.some((end, corner) => Math.abs(end - (corner < 2 ? 0 : 1)) > 0.01)) {
      const [left, top, right, bottom] = box.map((end) => Math.round(100 * end));
      places.push(`${left}–${right} % across, ${top}–${bottom} % down`);
    }
    return places.join(", ") || "all of it";
  }

  /** The picture of a content with what matches drawn on it; `side` 0 is the query's, `matches` may be empty. */
  function view(content, matches, side) {
    const source = preview(content);
    if (!source) {
      return make("div", "none", content[C.TYPE] === "text" ? "text" : `no picture of this ${content[C.TYPE]}`);
    }
    const timed = content[C.TYPE] === "audio" || content[C.TYPE] === "video";
    const image = make("img");
    image.src = source;
    image.alt = "";
    image.decoding = "async";
    const shown = make("div", timed ? "view strip" : "view picture", image);
    matches.slice(0, 6).forEach((match, number) => {
      const range = match[M.RANGES] && match[M.RANGES][side], box = match[M.BOXES] && match[M.BOXES][side];
      if (timed && range && content[C.LENGTH] > 0) {
        const mark = make("div", `mark time color${number}`);
        mark.style.left = `${(100 * range[0]) / content[C.LENGTH]}%`;
        mark.style.width = `${Math.max(0.3, (100 * (range[1] - range[0])) / content[C.LENGTH])}%`;
        shown.append(mark);
      } else if (!timed && box) {
        const mark = make("div", `mark color${number}`);
        const [left, top, right, bottom] = box.map((end) => 100 * Math.min(1, Math.max(0, end)));
        Object.assign(mark.style, {
          left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`,
        });
        shown.append(mark);
      }
    });
    if (!timed) return shown;
    const axis = make("div", "axis", make("span", "", "0"), make("span", "", seconds(content[C.LENGTH])));
    return make("div", "", shown, axis);
  }

  function facts(content, within = false) {
    const line = make("div", "facts", `${content[C.TYPE]} · ${content[C.FACTS]}`);
    if (content[C.CLUSTER] && !within) line.append(` · cluster ${content[C.CLUSTER]}`);
    if (content[C.KEEP]) line.append(" · ", make("span", "keep", "★ keep"));
    return line;
  }

  function title(content) {
    const name = make("div", "name");
    name.title = content[C.URI];
    if (/^(file|https?):/.test(content[C.URI])) {
      const link = make("a", "", own(content[C.NAME]));
      link.href = content[C.URI];
      link.target = "_blank";
      link.rel = "noopener noreferrer";
      name.append(link);
    } else {
      name.append(own(content[C.NAME]));
    }
    return name;
  }

  function side(row, number) {
    const content = number ? row.other : row.one;
    const matches = row.pair[P.MATCHES];
    const column = make("div", "side");
    const passages = matches.filter((match) => match[M.WORDS]).slice(0, 3);
    if (content[C.TYPE] === "text" && passages.length) {
      passages.forEach((match, color) => {
        const passage = make("p", `passage color${color}`);
        for (const [text, kind] of match[M.WORDS][number]) passage.append(make("span", `p${kind}`, own(text)));
        column.append(passage);
      });
    } else {
      column.append(view(content, matches, number));
    }
    column.append(title(content), make("div", "folder", own(content[C.FOLDER])), facts(content));
    const best = matches[0];
    const more = matches.length > 1 ? ` and ${matches.length - 1} more` : "";
    const place = where(content, best[M.RANGES] && best[M.RANGES][number], best[M.BOXES] && best[M.BOXES][number]);
    column.append(make("div", "where", place + more));
    return column;
  }

  function pairCard(row) {
    const { pair } = row;
    const card = make("article", "card");
    const verdicts = make("div", "verdicts");
    const buttons = [[1, "same", "Same"], [2, "different", "Not a duplicate"]].map(([verdict, name, text]) => {
      const button = make("button", name, text);
      button.type = "button";
      button.addEventListener("click", () => set(row.verdict === verdict ? 0 : verdict));
      verdicts.append(button);
      return [button, verdict];
    });
    function paint() {
      card.classList.toggle("same", row.verdict === 1);
      card.classList.toggle("different", row.verdict === 2);
      for (const [button, verdict] of buttons) button.setAttribute("aria-pressed", String(row.verdict === verdict));
    }
    function set(verdict) {
      decide(row, verdict);
      paint();
    }
    const sure = pair[P.SURE] === null ? "" : `, sure ${pair[P.SURE].toFixed(4)}`;
    const middle = make("div", "middle",
      make("div", "relation", RELATIONS[pair[P.RELATION]][0]),
      make("div", "numbers", `score ${pair[P.SCORE].toFixed(3)}${sure}`),
      make("div", "evidence", [...row.evidences].map((index) => evidences[index]).join(", ")),
      verdicts);
    card.append(make("div", "pair", side(row, 0), middle, side(row, 1)));
    card.set = set;
    paint();
    return card;
  }

  function clusterCard(cluster) {
    const members = make("div", "members");
    for (const index of cluster.members.slice(0, MEMBERS_SHOWN)) {
      const content = contents[index];
      const wide = content[C.TYPE] === "audio" || content[C.TYPE] === "video";
      members.append(make("div", wide ? "member wide" : "member",
        view(content, [], 0), title(content), make("div", "folder", own(content[C.FOLDER])), facts(content, true)));
    }
    if (cluster.size > MEMBERS_SHOWN) members.append(make("div", "none", `and ${cluster.size - MEMBERS_SHOWN} more`));
    const show = make("button", "", "Show its pairs");
    show.type = "button";
    show.addEventListener("click", () => {
      at("cluster").value = cluster.number;
      open("pairs");
    });
    const head = make("div", "row", make("strong", "", `Cluster ${cluster.number}`),
      make("span", "facts", `${cluster.size} copies, ${cluster.spare} to spare`), make("span", "gap"), show);
    return make("article", "card cluster", head, members);
  }

  // ---------------------------------------------------------------- filters and pages

  let tab = "pairs", found = [], page = 0, here = 0;

  function choices(id, all, entries) {
    at(id).replaceChildren(...[["", all], ...entries].map(([value, text]) => new Option(text, value)));
  }

  function filter() {
    const text = at("text").value.trim().toLowerCase(), type = at("type").value, relation = at("relation").value;
    const evidence = at("evidence").value, score = Number(at("score").value), sure = Number(at("sure").value);
    const cluster = Number(at("cluster").value), undecided = at("undecided").checked;
    const order = ORDERS[at("order").value] || ORDERS.sure;
    if (tab === "pairs") {
      found = rows.filter(({ pair, one, other, words, verdict, evidences: by }) =>
        (!text || words.includes(text)) && (!type || one[C.TYPE] === type || other[C.TYPE] === type) &&
        (!relation || RELATIONS[pair[P.RELATION]][1] === relation) && (!evidence || by.has(Number(evidence))) &&
        pair[P.SCORE] >= score && (!sure || (pair[P.SURE] !== null && pair[P.SURE] >= sure)) &&
        (!cluster || one[C.CLUSTER] === cluster || other[C.CLUSTER] === cluster) && (!undecided || !verdict));
      found.sort(order[1]);
    } else {
      found = clusters.filter((each) =>
        (!cluster || each.number === cluster) && (!type || contents[each.members[0]][C.TYPE] === type) &&
        (!text || each.members.some((index) =>
          `${contents[index][C.FOLDER]}/${contents[index][C.NAME]} ${contents[index][C.ID]}`.toLowerCase().includes(text))));
    }
    show(0);
  }

  function show(number, last = false) {
    const size = tab === "pairs" ? PAIRS_ON_A_PAGE : CLUSTERS_ON_A_PAGE;
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.min(Math.max(0, number), pages - 1);
    const part = found.slice(page * size, (page + 1) * size);
    at("list").replaceChildren(...part.map(tab === "pairs" ? pairCard : clusterCard));
    if (!part.length) at("list").append(make("p", "empty", "Nothing fits these filters."));
    const many = found.length.toLocaleString("en");
    at("page").textContent = `${many} ${tab}, page ${page + 1} of ${pages.toLocaleString("en")}`;
    at("previous").disabled = page === 0;
    at("next").disabled = page === pages - 1;
    scrollTo(0, 0);
    point(last ? part.length - 1 : 0, false);
  }

  function point(number, scroll = true) {
    const cards = at("list").querySelectorAll(".card");
    cards[here]?.classList.remove("here");
    here = number;
    if (tab !== "pairs" || !cards[here]) return;
    cards[here].classList.add("here");
    if (scroll) cards[here].scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const cards = at("list").children.length;
    if (here + by >= cards && !at("next").disabled) show(page + 1);
    else if (here + by < 0 && !at("previous").disabled) show(page - 1, true);
    else point(Math.min(Math.max(0, here + by), cards - 1));
  }

  function open(name) {
    tab = name;
    for (const each of ["pairs", "clusters"]) at(`tab-${each}`).setAttribute("aria-selected", String(each === tab));
    for (const id of ["relation", "evidence", "score", "sure", "undecided", "order"]) at(id).disabled = tab !== "pairs";
    filter();
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const card = tab === "pairs" ? at("list").querySelector(".card.here") : null;
    const actions = {
      j: () => step(1), k: () => step(-1), n: () => !at("next").disabled && show(page + 1),
      p: () => !at("previous").disabled && show(page - 1),
      s: () => { card?.set(1); step(1); }, d: () => { card?.set(2); step(1); }, u: () => card?.set(0),
    };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  });

  choices("type", "every type", types.map((type) => [type, type]));
  const kinds = [...new Set(pairs.map((pair) => RELATIONS[pair[P.RELATION]][1]))];
  choices("relation", "every relation", kinds.map((kind) => [kind, kind === "are copies" ? "copies" : kind]));
  choices("evidence", "every evidence", evidences.map((name, index) => [index, name]));
  at("order").replaceChildren(...Object.entries(ORDERS).map(([value, [text]]) => new Option(text, value)));
  for (const id of ["type", "relation", "evidence", "undecided", "order"]) at(id).addEventListener("change", filter);
  let soon;
  for (const id of ["text", "score", "sure", "cluster"]) {
    at(id).addEventListener("input", () => {
      clearTimeout(soon);
      soon = setTimeout(filter, 120);
    });
  }
  at("reset").addEventListener("click", () => {
    for (const id of ["text", "type", "relation", "evidence", "cluster"]) at(id).value = "";
    at("score").value = at("sure").value = 0;
    at("undecided").checked = false;
    at("order").value = "sure";
    filter();
  });
  at("previous").addEventListener("click", () => show(page - 1));
  at("next").addEventListener("click", () => show(page + 1));
  at("tab-pairs").addEventListener("click", () => open("pairs"));
  at("tab-clusters").addEventListener("click", () => open("clusters"));
  at("export").addEventListener("click", save);
  at("summary").textContent = data.summary;
  sayDecided();
  filter();
})();
