"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const two = data.names.length === 2;
  const $ = (id) => document.getElementById(id);
  const make = (name, css, text) => {
    const node = document.createElement(name);
    if (css) node.className = css;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const percent = (share) => (share === 0 ? "0 %" : share < 0.095 ? (100 * share).toFixed(1) + " %" : Math.round(100 * share) + " %");
  const plural = (n, noun) => n.toLocaleString("en") + " " + noun + (n === 1 ? "" : "s");
  const fold = (text) => { const low = text.toLowerCase(); return low.length === text.length ? low : text; };
  const said = (piece) => (typeof piece === "string" ? piece : piece[0]);
  const ratio = (a, b) => (b ? a / b : NaN);
  const topWeight = Math.max(1e-9, ...data.records.flatMap((r) => r.spans.flatMap((own) => own.map((s) => s[2]))));

  const records = data.records.map((r, place) => {
    const [both, first, second, neither] = r.counts || [0, 0, 0, 0], all = both + first + second + neither;
    return {
      ...r, place, marks: r.spans.reduce((n, own) => n + own.length, 0),
      share: two ? [ratio(both + first, all), ratio(both + second, all)] : [ratio(both, all)],
      jaccard: both + first + second ? both / (both + first + second) : 1,
      differ: first + second > 0, only: [first > 0, second > 0], compared: Boolean(r.counts),
      length: r.body.reduce((n, p) => n + said(p).length, 0) + r.more[1],
    };
  });
  const hay = (r) => (r.hay = r.hay || fold([r.id, r.subject, r.prompt.map(said).join(""), r.body.map(said).join("")].join("\n")));

  const state = { find: "", filter: "all", sort: "order", view: "beside", bin: -1, hidden: new Set(), list: records, version: 0, at: -1, span: -1 };
  const BINS = 20;
  const bin = (share) => Math.min(BINS - 1, Math.floor(share * BINS));

  const others = data.labels.filter((label) => label !== "unwanted" && label !== "general");
  const colour = (i) => ({ unwanted: "l0", general: "l1" })[data.labels[i]] || "l" + (2 + (others.indexOf(data.labels[i]) % 6));

  /* Filters and orders: only those that some record fits are offered. */
  const marksUnwanted = (r, k) => r.share[k] > 0;
  const filters = [
    ["all", "all records", () => true],
    ...(two ? [
      ["differ", "where they differ", (r) => r.compared && r.differ],
      ["same", "where they agree", (r) => r.compared && !r.differ],
      ["only0", "more in " + data.names[0], (r) => r.compared && r.only[0]],
      ["only1", "more in " + data.names[1], (r) => r.compared && r.only[1]],
      ...data.names.map((name, k) => ["none" + k, "nothing marked by " + name, (r) => r.covered[k] && r.share[k] === 0]),
      ["lone", "annotated by one only", (r) => !r.compared],
    ] : [
      ["some", "with unwanted " + data.unit, (r) => marksUnwanted(r, 0)],
      ["none0", "without unwanted " + data.unit, (r) => !marksUnwanted(r, 0)],
    ]),
    ["weights", "with weights below the greatest", (r) => r.spans.some((own) => own.some((s) => s[2] < topWeight))],
    ["midword", "with a span that cuts a word", (r) => r.midword],
    ["overlap", "with overlapping spans", (r) => [...r.body, ...r.prompt].some((p) => typeof p !== "string" && p[1].some((own) => own.length > 1))],
    ...(data.labels.length > 1 ? data.labels.map((label, i) => ["label" + i, "label: " + label, (r) => r.spans.some((own) => own.some((s) => s[0] === i))]) : []),
    ...(data.sources.length > 1 ? data.sources.map((source, i) => ["source" + i, "source: " + (source || "none"), (r) => r.spans.some((own) => own.some((s) => s[1] === i))]) : []),
  ];
  const mean = (r) => (r.share.reduce((a, b) => a + (b || 0), 0)) / r.share.length;
  const sorts = [
    ["order", "as in the data", (a, b) => a.place - b.place],
    ...(two ? [["least", "least agreement first", (a, b) => (b.compared - a.compared) || a.jaccard - b.jaccard]] : []),
    ["high", "largest share first", (a, b) => mean(b) - mean(a)],
    ["low", "smallest share first", (a, b) => mean(a) - mean(b)],
    ["long", "longest first", (a, b) => b.length - a.length],
  ];

  /* One body or prompt: neighbouring pieces with the same spans are one mark; search hits cut through them. */
  function draw(pieces, mode, find) {
    const runs = [];
    for (const piece of pieces) {
      const [text, cover, bits] = typeof piece === "string" ? [piece, null, 0] : piece;
      let key = "";
      if (mode === "over") key = bits ? "b" + bits : "";
      else if (cover) key = (cover[mode] || []).filter((i) => !state.hidden.has(draw.spans[mode][i][0])).join(",");
      const last = runs[runs.length - 1];
      if (last && last.key === key) last.text += text; else runs.push({ key, text });
    }
    const whole = fold(runs.map((run) => run.text).join("")), hits = [];
    if (find) for (let i = whole.indexOf(find); i >= 0; i = whole.indexOf(find, i + find.length)) hits.push([i, i + find.length]);
    const out = document.createDocumentFragment();
    let from = 0;
    for (const run of runs) {
      const to = from + run.text.length, node = run.key ? make("span", "sp") : out;
      if (run.key) dress(node, run.key, mode);
      let position = from;
      for (const [a, b] of hits) {
        const low = Math.max(a, from), high = Math.min(b, to);
        if (low >= high) continue;
        if (low > position) node.append(run.text.slice(position - from, low - from));
        node.append(make("span", "hit", run.text.slice(low - from, high - from)));
        position = high;
      }
      if (position < to) node.append(run.text.slice(position - from));
      if (run.key) out.append(node);
      from = to;
    }
    return out;
  }
  function dress(node, key, mode) {
    if (mode === "over") {
      const bits = Number(key.slice(1));
      node.classList.add(bits === 3 ? "both" : "only" + (bits - 1));
      node.told = [{ head: bits === 3 ? "both" : "only " + data.names[bits - 1], rest: "call this unwanted" }];
      if (bits !== 3) node.told[0].rest = "calls this unwanted";
      return;
    }
    const spans = key.split(",").map((i) => draw.spans[mode][Number(i)]);
    const top = spans.reduce((a, b) => (b[2] > a[2] ? b : a));
    node.classList.add(colour(top[0]));
    node.style.setProperty("--heat", (10 + 32 * Math.max(0, Math.min(1, top[2] / topWeight))).toFixed(1) + "%");
    node.told = spans.map((s) => ({ head: data.labels[s[0]] + ", weight " + Math.round(1000 * s[2]) / 1000, rest: [data.sources[s[1]], s[3]].filter(Boolean).join(", ") }));
  }

  /* Every record has its place in the list; what stands in it is drawn when it comes near the window. */
  function shell(r) {
    if (r.node) return r.node;
    const node = r.node = make("article", "rec");
    node.setAttribute("role", "listitem");
    node.tabIndex = -1;
    node.record = r;
    node.drawn = -1;
    node.setAttribute("aria-label", r.id + ", " + data.names.map((name, k) => (two ? name + " " : "") + (isNaN(r.share[k]) ? "not annotated" : percent(r.share[k]) + " unwanted")).join(", "));
    const lines = Math.ceil(r.length / (two ? 46 : 95)) + Math.ceil(r.prompt.length / 95);
    node.style.setProperty("--guess", (4.5 + 2.1 * lines).toFixed(1) + "rem");
    return node;
  }
  function fill(node) {
    if (!node || node.drawn === state.version) return;
    node.drawn = state.version;
    const r = node.record, find = fold(state.find), meta = make("div", "meta"), text = make("div", "text");
    meta.append(make("span", "id", r.id));
    if (r.subject) meta.append(make("span", "subject", r.subject));
    data.names.forEach((name, k) => {
      if (!r.covered[k] || isNaN(r.share[k])) return;
      const amount = make("span", "amount" + (two ? " side" + k : ""), percent(r.share[k]) + (two ? "" : " of " + data.unit));
      const gauge = make("span", "gauge"), part = make("i");
      part.style.setProperty("--part", (100 * r.share[k]).toFixed(1) + "%");
      gauge.append(part);
      amount.append(gauge);
      amount.title = name + ": " + percent(r.share[k]) + " of the " + data.unit;
      meta.append(amount);
    });
    if (two && r.compared) meta.append(make("span", "match", "Jaccard " + r.jaccard.toFixed(2)));
    draw.spans = r.spans;
    if (r.prompt.length) {
      const prompt = make("p", "question-text");
      prompt.dir = "auto";
      prompt.append(draw(r.prompt, two ? (r.prompt.some((p) => typeof p !== "string" && p[1][0] && p[1][0].length) ? 0 : 1) : 0, find));
      if (r.more[0]) prompt.append(make("span", "more", " … " + r.more[0].toLocaleString("en") + " more characters"));
      text.append(prompt);
    }
    const isCode = /\n[ \t]+\S/.test(r.body.map(said).join(""));
    const body = (mode) => {
      const p = make("p", "body" + (isCode ? " code" : ""));
      p.dir = "auto";
      if (mode !== "over" && !r.covered[mode]) { p.append(make("span", "none", "not annotated")); return p; }
      p.append(draw(r.body, mode, find));
      if (!r.body.length) p.append(make("span", "none", "no text"));
      if (r.more[1]) p.append(make("span", "more", " … " + r.more[1].toLocaleString("en") + " more characters"));
      return p;
    };
    if (two && state.view === "beside") {
      const pair = make("div", "pair");
      data.names.forEach((name, k) => {
        const side = make("div", "side" + k), head = make("h3");
        head.append(make("i", "swatch"), name);
        side.append(head, body(k));
        pair.append(side);
      });
      text.append(pair);
    } else text.append(body(two ? "over" : 0));
    node.replaceChildren(meta, text);
  }

  const list = $("list");
  const watcher = new IntersectionObserver((seen) => seen.forEach((s) => { if (s.isIntersecting) fill(s.target); }), { rootMargin: "900px" });
  const fits = (r) => {
    const chosen = filters.find((f) => f[0] === state.filter);
    const inBin = state.bin < 0 || r.share.some((s) => !isNaN(s) && bin(s) === state.bin);
    return chosen[2](r) && inBin && (!state.find || hay(r).includes(fold(state.find)));
  };
  const update = () => {
    state.list = records.filter(fits).sort(sorts.find((s) => s[0] === state.sort)[2]);
    redraw();
    $("found").textContent = state.list.length === records.length ? plural(records.length, "record") : state.list.length.toLocaleString("en") + " of " + plural(records.length, "record");
    $("end").textContent = state.list.length ? "" : "No record fits.";
    document.querySelectorAll(".bin").forEach((b, i) => b.setAttribute("aria-pressed", String(i === state.bin)));
  };
  const redraw = () => {
    hideTip();
    state.version++; state.at = -1; state.span = -1;
    list.querySelectorAll(".on").forEach((node) => node.classList.remove("on"));
    watcher.disconnect();
    list.replaceChildren(...state.list.map(shell));
    state.list.forEach((r, i) => { r.node.tabIndex = i ? -1 : 0; watcher.observe(r.node); });
    [...list.children].slice(0, 8).forEach(fill);
  };
  addEventListener("beforeprint", () => [...list.children].forEach(fill));

  /* What a span says: beside it for the pointer, aloud for a reader. */
  const tip = $("tip");
  const hideTip = () => { tip.hidden = true; document.querySelectorAll(".sp.at").forEach((n) => n.classList.remove("at")); };
  const showTip = (node, aloud) => {
    hideTip();
    if (!node.told) return;
    tip.replaceChildren(...node.told.map((t) => { const p = make("p", "", t.head); if (t.rest) p.append(make("br"), make("span", "", t.rest)); return p; }));
    tip.hidden = false;
    const box = node.getClientRects()[0], home = $("records").getBoundingClientRect();
    tip.style.left = Math.max(0, Math.min(box.left - home.left, home.width - tip.offsetWidth)) + "px";
    tip.style.top = (box.bottom - home.top + 6) + "px";
    if (aloud) {
      node.classList.add("at");
      $("said").textContent = node.textContent + ": " + node.told.map((t) => [t.head, t.rest].join(", ")).join("; ");
    }
  };
  list.addEventListener("pointerover", (event) => { const node = event.target.closest(".sp"); if (node) showTip(node, false); });
  list.addEventListener("pointerout", (event) => { if (event.target.closest(".sp")) hideTip(); });
  list.addEventListener("click", (event) => {
    const node = event.target.closest(".rec"), span = event.target.closest(".sp");
    if (node && !getSelection().toString()) choose([...list.children].indexOf(node), false);
    if (span) showTip(span, true);
  });

  const choose = (i, focus) => {
    if (!state.list.length) return;
    i = Math.max(0, Math.min(state.list.length - 1, i));
    const old = list.children[state.at], node = list.children[i];
    for (let near = Math.max(0, i - 4); near < i + 5; near++) fill(list.children[near]);
    for (const n of [old, list.firstChild]) if (n) { n.classList.remove("on"); n.tabIndex = -1; }
    node.classList.add("on"); node.tabIndex = 0;
    if (i !== state.at) { state.span = -1; hideTip(); }
    state.at = i;
    if (focus) { node.focus({ preventScroll: true }); node.scrollIntoView({ block: "nearest" }); }
  };
  const walk = (step) => {
    const node = list.children[Math.max(0, state.at)];
    if (!node) return;
    if (state.at < 0) choose(0, true);
    const spans = [...node.querySelectorAll(".text .sp")];
    if (!spans.length) return;
    state.span = Math.max(0, Math.min(spans.length - 1, state.span + step));
    spans[state.span].scrollIntoView({ block: "nearest" });
    showTip(spans[state.span], true);
  };
  list.addEventListener("focusin", (event) => { const node = event.target.closest(".rec"); if (node) choose([...list.children].indexOf(node), false); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea, button");
    if (event.key === "/" && !typing) { $("find").focus(); $("find").select(); event.preventDefault(); return; }
    if (event.key === "Escape" && event.target === $("find") && state.find) { $("find").value = ""; search(); return; }
    if (event.key === "Escape") return hideTip();
    if (event.target === $("find") && event.key === "ArrowDown") { choose(0, true); event.preventDefault(); return; }
    if (typing) return;
    const inside = list.contains(event.target);
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (step && (inside || event.key === "j" || event.key === "k")) choose(state.at + step, true);
    else if (inside && event.key === "ArrowRight") walk(1);
    else if (inside && event.key === "ArrowLeft") walk(-1);
    else if (inside && event.key === "Home") choose(0, true);
    else if (inside && event.key === "End") choose(state.list.length - 1, true);
    else return;
    event.preventDefault();
  });

  /* Overview. */
  function histogram() {
    const counts = data.names.map((_, k) => {
      const bins = new Array(BINS).fill(0);
      for (const r of records) if (!isNaN(r.share[k])) bins[bin(r.share[k])]++;
      return bins;
    });
    const top = Math.max(1, ...counts.flat());
    data.names.forEach((name, k) => {
      const note = make("span", "most side" + k, (two ? name + ", " : "") + "at most " + plural(Math.max(...counts[k]), "record"));
      if (two) note.prepend(make("i", "swatch"));
      $("histogram").append(note);
    });
    for (let i = 0; i < BINS; i++) {
      const button = make("button", "bin"), low = Math.round((100 * i) / BINS), high = Math.round((100 * (i + 1)) / BINS);
      button.type = "button";
      const words = counts.map((c, k) => (two ? data.names[k] + " " : "") + plural(c[i], "record")).join(", ");
      button.title = low + " to " + high + " %: " + words;
      button.setAttribute("aria-label", button.title);
      button.setAttribute("aria-pressed", "false");
      button.disabled = counts.every((c) => !c[i]);
      counts.forEach((c) => {
        const half = make("span"), bar = make("i", c[i] ? "some" : "");
        bar.style.setProperty("--tall", ((100 * c[i]) / top).toFixed(1) + "%");
        half.append(bar);
        button.append(half);
      });
      button.addEventListener("click", () => { state.bin = state.bin === i ? -1 : i; update(); toRecords(); });
      $("histogram").append(button);
    }
  }
  const toRecords = () => $("records").scrollIntoView({ block: "start" });
  function legend() {
    const box = $("legend");
    box.replaceChildren();
    if (two && state.view === "over") {
      [["both", "both"], ["only0", "only " + data.names[0]], ["only1", "only " + data.names[1]]].forEach(([css, text]) => box.append(make("span", "sp " + css, text)));
      return;
    }
    if (data.labels.length > 1) data.labels.forEach((label, i) => {
      const button = make("button"), sample = make("span", "sp " + colour(i), label);
      button.type = "button";
      button.title = "Show or hide this label";
      button.setAttribute("aria-pressed", String(!state.hidden.has(i)));
      button.append(sample);
      button.addEventListener("click", () => { if (!state.hidden.delete(i)) state.hidden.add(i); legend(); redraw(); });
      box.append(button);
    });
    if (data.records.some((r) => r.spans.some((own) => own.some((s) => s[2] < topWeight)))) box.append(make("span", "", "stronger colour: more weight, up to " + Math.round(1000 * topWeight) / 1000));
  }
  /* The list is busy from the first key until the search for what was typed has been drawn. */
  let waiting = 0;
  const busy = (yes) => list.setAttribute("aria-busy", String(yes));
  const search = () => { clearTimeout(waiting); state.find = $("find").value.trim(); update(); busy(false); };
  $("find").addEventListener("input", () => { clearTimeout(waiting); busy(true); waiting = setTimeout(search, records.length > 800 ? 160 : 40); });
  for (const [id, choices, key] of [["filter", filters, "filter"], ["sort", sorts, "sort"]]) {
    for (const [value, text, test] of choices) {
      const n = id === "filter" ? records.filter(test).length : 1;
      if (!n) continue;
      const option = make("option", "", id === "filter" && value !== "all" ? text + " (" + n.toLocaleString("en") + ")" : text);
      option.value = value;
      $(id).append(option);
    }
    $(id).addEventListener("change", () => { state[key] = $(id).value; update(); });
  }
  document.querySelectorAll("input[name=view]").forEach((radio) => radio.addEventListener("change", () => { state.view = radio.value; legend(); redraw(); }));
  document.querySelectorAll(".phrase").forEach((button) => button.addEventListener("click", () => { $("find").value = button.dataset.find; search(); toRecords(); }));
  $("tools").hidden = false;
  document.querySelectorAll(".note").forEach((button) => button.addEventListener("click", () => { $("filter").value = state.filter = button.dataset.filter; update(); toRecords(); }));
  histogram();
  legend();
  update();
  document.documentElement.dataset.ready = "yes";
})();
