"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (name, css, text) => {
    const node = document.createElement(name);
    if (css) node.className = css;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const draw = (name, facts) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in facts) node.setAttribute(key, facts[key]);
    return node;
  };
  const shown = (v) => {
    if (v === null || !isFinite(v)) return "n/a";
    const size = Math.abs(v);
    if (size === 0) return "0";
    if (size < 0.0005 || size >= 100000) return v.toExponential(1);
    return size < 10 ? v.toFixed(3) : size < 1000 ? v.toFixed(1) : v.toFixed(0);
  };
  const probability = (nll) => (isNaN(nll) ? NaN : Math.exp(-nll));

  /* Numbers are 16-bit multiples of data.tokens.step, base64; 65535 is "not a number". */
  const unpack = (text) => {
    const bytes = atob(text);
    const out = new Float64Array(bytes.length / 2);
    for (let i = 0; i < out.length; i++) {
      const n = bytes.charCodeAt(2 * i) + 256 * bytes.charCodeAt(2 * i + 1);
      out[i] = n === 65535 ? NaN : n * data.tokens.step;
    }
    return out;
  };

  function tokenView(t) {
    const state = { record: t.first, epoch: 0, shade: "weight", run: 0, token: -1, timer: 0 };
    let record, epochs, runs, rows;

    const load = () => {
      record = t.records[state.record];
      epochs = [...new Set(record.runs.flatMap((r) => (r ? r.epochs : [])))].sort((a, b) => a - b);
      runs = record.runs.map((r, place) => r && {
        place, name: t.runs[place], epochs: r.epochs,
        tokens: r.tokens || record.tokens, gold: new Set(r.gold || record.gold), special: new Set(r.special || record.special),
        weight: r.weight.map(unpack), nll: r.nll.map(unpack), entropy: r.entropy.map(unpack),
      }).filter(Boolean);
      for (const run of runs) run.topEntropy = Math.max(1e-9, ...run.entropy.map((h) => Math.max(...[...h].filter(isFinite))));
      const beside = (record.models || []).map((m) => m && unpack(m));
      record.beside = t.models.map((name, i) => ({ name, nll: beside[i] })).filter((m) => m.nll);
      state.epoch = Math.min(state.epoch, epochs.length - 1);
      state.run = Math.min(state.run, runs.length - 1);
      state.token = favourite();
      $("record").value = String(state.record);
      $("epoch").max = String(epochs.length - 1);
      $("epoch").disabled = $("play").disabled = epochs.length < 2;
      $("prompt").textContent = record.prompt;
      $("prompt").hidden = !record.prompt;
      build();
      paint();
    };
    /* The frame of a run at the chosen epoch: its latest one up to there. */
    const frame = (run) => {
      let at = 0;
      run.epochs.forEach((e, i) => { if (e <= epochs[state.epoch] + 1e-9) at = i; });
      return at;
    };
    const favourite = () => {
      const run = runs[0];
      const gain = (i) => (run.gold.has(i) ? 1000 : 0) + probability(run.nll[0][i]) - probability(run.nll[run.nll.length - 1][i]);
      return run.tokens.reduce((best, _, i) => (gain(i) > gain(best) ? i : best), 0);
    };
    const build = () => {
      $("rows").replaceChildren();
      rows = runs.map((run, place) => {
        const row = make("div", "row s" + (run.place % 8));
        const head = make("p", "rowhead");
        const swatch = draw("svg", { class: "key", viewBox: "0 0 14 14", "aria-hidden": "true" });
        swatch.append(draw("circle", { class: "dot s" + (run.place % 8), cx: 7, cy: 7, r: 4.5 }));
        const stats = make("span", "stats");
        head.append(swatch, make("strong", "", run.name), stats);
        const line = make("div", "sentence");
        line.setAttribute("role", "listbox");
        line.setAttribute("aria-label", "Tokens of " + run.name);
        line.setAttribute("aria-orientation", "horizontal");
        line.tabIndex = 0;
        const spans = run.tokens.map((text, i) => {
          const gold = run.gold.has(i);
          const span = make("span", "tok" + (gold ? " g" : "") + (gold && !run.gold.has(i - 1) ? " gs" : "")
            + (gold && !run.gold.has(i + 1) ? " ge" : "") + (run.special.has(i) ? " special" : ""));
          /* The space before a gold span stays outside its box. */
          const gap = i > 0 && gold && !run.gold.has(i - 1) ? text.length - text.trimStart().length : 0;
          if (gap && gap < text.length) line.append(text.slice(0, gap));
          span.textContent = run.special.has(i) ? "end" : gap < text.length ? text.slice(gap) : text;
          if (run.special.has(i)) span.title = text;
          span.id = "t" + place + "-" + i;
          span.setAttribute("role", "option");
          span.addEventListener("pointerenter", () => choose(place, i));
          span.addEventListener("click", () => choose(place, i));
          line.append(span);
          return span;
        });
        if (record.more) line.append(make("span", "none", " … " + record.more + " more tokens"));
        line.addEventListener("keydown", (event) => {
          const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          const last = run.tokens.length - 1;
          if (move) choose(place, Math.max(0, Math.min(last, state.token + move)));
          else if (event.key === "Home") choose(place, 0);
          else if (event.key === "End") choose(place, last);
          else return;
          event.preventDefault();
        });
        line.addEventListener("focus", () => choose(place, Math.min(state.token, run.tokens.length - 1)));
        row.append(head, line);
        $("rows").append(row);
        return { stats, line, spans };
      });
    };
    const level = (run, at, i, mean) => {
      if (state.shade === "probability") return probability(run.nll[at][i]);
      if (state.shade === "entropy") return run.entropy[at][i] / run.topEntropy;
      return mean > 0 ? run.weight[at][i] / (3 * mean) : 0;
    };
    const paint = () => {
      runs.forEach((run, place) => {
        const at = frame(run), weight = run.weight[at];
        const total = weight.reduce((a, b) => a + (b || 0), 0), mean = total / Math.max(1, weight.length);
        const gold = weight.reduce((a, b, i) => a + (run.gold.has(i) ? b || 0 : 0), 0);
        const average = (nll) => probability(nll.reduce((a, b) => a + b, 0) / nll.length);
        const parts = ["answer probability " + shown(average(run.nll[0])) + (at ? " → " + shown(average(run.nll[at])) : "")];
        if (run.gold.size && total > 0) parts.push(Math.round(100 * gold / total) + " % of the weight on gold");
        if (run.epochs[run.epochs.length - 1] < epochs[state.epoch] - 1e-9) parts.push("ended at epoch " + run.epochs[run.epochs.length - 1]);
        rows[place].stats.textContent = parts.join(" · ");
        rows[place].spans.forEach((span, i) => {
          const heat = Math.max(0, Math.min(1, level(run, at, i, mean) || 0));
          span.style.setProperty("--heat", (100 * heat).toFixed(1) + "%");
          span.classList.toggle("h1", heat >= 0.62);
          span.classList.toggle("h2", heat >= 0.85);
          span.classList.toggle("on", i === state.token);
          span.setAttribute("aria-selected", String(i === state.token && place === state.run));
          span.setAttribute("aria-label", span.textContent + ", weight " + shown(weight[i]) + ", probability " + shown(probability(run.nll[at][i])) + (run.gold.has(i) ? ", gold" : ""));
        });
        rows[place].line.setAttribute("aria-activedescendant", "t" + place + "-" + state.token);
      });
      const now = epochs[state.epoch];
      $("epoch").value = String(state.epoch);
      $("epochvalue").textContent = shownEpoch(now) + (now === 0 ? " (before)" : "") ;
      $("epoch").setAttribute("aria-valuetext", "epoch " + shownEpoch(now));
      $("scalehigh").textContent = { weight: "3 × the mean weight, or more", probability: "probability 1", entropy: "highest entropy" }[state.shade];
      inspect();
    };
    const shownEpoch = (e) => String(Math.round(e * 100) / 100);
    const choose = (place, i) => {
      if (state.run === place && state.token === i) return;
      state.run = place; state.token = i;
      rows.forEach((row, p) => row.spans.forEach((span, j) => {
        span.classList.toggle("on", j === i);
        span.setAttribute("aria-selected", String(j === i && p === place));
        row.line.setAttribute("aria-activedescendant", "t" + p + "-" + i);
      }));
      inspect();
    };
    const inspect = () => {
      const box = $("inspector"), i = state.token, run = runs[state.run];
      box.replaceChildren();
      const name = run.special.has(i) ? "end of the answer" : (run.tokens[i] || "").trim() || "space";
      box.append(make("p", "inspected", t.redacted ? "token " + (i + 1) : name));
      box.append(make("p", "what", (run.gold.has(i) ? "gold token" : "not gold") + ", number " + (i + 1) + " of " + run.tokens.length));
      const table = make("table", "plain"), head = make("tr");
      ["", "weight", "probability", "entropy"].forEach((text) => head.append(make("th", text ? "num" : "", text)));
      table.append(make("thead"), make("tbody"));
      table.tHead.append(head);
      const add = (label, css, values) => {
        const tr = make("tr");
        const th = make("th", "", label);
        th.scope = "row";
        th.prepend(symbol(css));
        tr.append(th, ...values.map((v) => make("td", "num", v)));
        table.tBodies[0].append(tr);
      };
      record.beside.forEach((m) => add(m.name, m.name.startsWith("oracle") ? "oracle" : "target", ["", shown(probability(m.nll[i])), ""]));
      runs.forEach((r) => {
        const at = frame(r);
        if (i < r.tokens.length) add(r.name, "s" + (r.place % 8), [shown(r.weight[at][i]), shown(probability(r.nll[at][i])), shown(r.entropy[at][i])]);
      });
      box.append(table);
      if (epochs.length > 1) box.append(make("p", "what", "probability over the epochs"), spark(i));
    };
    const symbol = (css) => {
      const svg = draw("svg", { class: "key", viewBox: "0 0 14 14", "aria-hidden": "true" });
      if (css === "target") svg.append(draw("rect", { class: "dot target", x: 3, y: 3, width: 8, height: 8 }));
      else if (css === "oracle") svg.append(draw("path", { class: "dot oracle", d: "M7 1L13 7L7 13L1 7Z" }));
      else svg.append(draw("circle", { class: "dot " + css, cx: 7, cy: 7, r: 4.5 }));
      return svg;
    };
    const spark = (i) => {
      const W = 280, H = 84, L = 22, R = 6, T = 8, B = 16, last = epochs[epochs.length - 1];
      const svg = draw("svg", { class: "spark", viewBox: "0 0 " + W + " " + H, "aria-hidden": "true" });
      const x = (e) => L + (W - L - R) * (e - epochs[0]) / Math.max(1e-9, last - epochs[0]), y = (p) => H - B - (H - T - B) * p;
      const text = (at, up, words, anchor) => {
        const node = draw("text", { class: "tick", x: at, y: up, "text-anchor": anchor });
        node.textContent = words;
        svg.append(node);
      };
      for (const p of [0, 1]) { svg.append(draw("line", { class: "grid", x1: L, x2: W - R, y1: y(p), y2: y(p) })); text(L - 6, y(p) + 4, String(p), "end"); }
      text(L, H - 2, shownEpoch(epochs[0]), "start"); text(W - R, H - 2, "epoch " + shownEpoch(last), "end");
      record.beside.filter((m) => m.name.startsWith("oracle")).forEach((m) => svg.append(draw("line", { class: "aim", x1: L, x2: W - R, y1: y(probability(m.nll[i]) || 0), y2: y(probability(m.nll[i]) || 0) })));
      svg.append(draw("line", { class: "now", x1: x(epochs[state.epoch]), x2: x(epochs[state.epoch]), y1: T - 4, y2: H - B }));
      runs.filter((r) => i < r.tokens.length).forEach((r) => {
        const d = r.epochs.map((e, k) => [e, probability(r.nll[k][i])]).filter(([, p]) => isFinite(p)).map(([e, p], k) => (k ? "L" : "M") + x(e).toFixed(1) + " " + y(p).toFixed(1)).join("");
        svg.append(draw("path", { class: "line s" + (r.place % 8), d }));
      });
      return svg;
    };
    const go = (place) => { state.record = (place + t.records.length) % t.records.length; load(); };
    const stop = () => { clearInterval(state.timer); state.timer = 0; $("play").textContent = "▶"; $("play").setAttribute("aria-label", "Play through the epochs"); };
    const play = () => {
      if (state.timer) return stop();
      if (state.epoch >= epochs.length - 1) state.epoch = 0;
      paint();
      $("play").textContent = "❚❚"; $("play").setAttribute("aria-label", "Pause");
      state.timer = setInterval(() => { state.epoch += 1; if (state.epoch >= epochs.length - 1) { state.epoch = epochs.length - 1; stop(); } paint(); }, 650);
    };

    t.records.forEach((r, i) => {
      const words = r.prompt && !t.redacted ? r.id + " · " + (r.prompt.length > 90 ? r.prompt.slice(0, 88) + "…" : r.prompt) : r.id;
      const option = make("option", "", words);
      option.value = String(i);
      $("record").append(option);
    });
    $("record").addEventListener("change", () => { stop(); go(Number($("record").value)); });
    $("previous").addEventListener("click", () => go(state.record - 1));
    $("next").addEventListener("click", () => go(state.record + 1));
    $("epoch").addEventListener("input", () => { stop(); state.epoch = Number($("epoch").value); paint(); });
    $("play").addEventListener("click", play);
    document.querySelectorAll("input[name=shade]").forEach((radio) => radio.addEventListener("change", () => { state.shade = radio.value; paint(); }));
    $("tokenview").hidden = false;
    load();
  }

  function readable(figure) {
    const chart = data.charts[figure.dataset.key], area = figure.querySelector(".plotarea"), svg = area.querySelector("svg");
    const rule = svg.querySelector(".rule"), out = figure.querySelector(".readout");
    const places = [...new Set(chart.series.flatMap((s) => s.x))].sort((a, b) => a - b);
    let at = places.length - 1;
    const [left, right] = chart.plot, way = chart.log ? Math.log : (v) => v, back = chart.log ? Math.exp : (v) => v;
    const [low, high] = chart.domain.map(way);
    const show = (i) => {
      at = Math.max(0, Math.min(places.length - 1, i));
      const x = places[at], pixel = left + (way(x) - low) / (high - low) * (right - left);
      rule.setAttribute("x1", pixel); rule.setAttribute("x2", pixel);
      figure.classList.add("reading");
      out.replaceChildren(make("span", "", chart.x + " " + (x && Math.abs(x) < 0.001 ? String(x) : Math.round(x * 1000) / 1000)));
      for (const s of chart.series) {
        let k = 0;
        s.x.forEach((v, j) => { if (Math.abs(v - x) < Math.abs(s.x[k] - x)) k = j; });
        out.append(make("span", "t" + s.style, (chart.series.length > 1 ? s.name + " " : "") + shown(s.y[k])));
      }
    };
    const hide = () => { figure.classList.remove("reading"); out.replaceChildren(); };
    area.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), unit = box.width / svg.viewBox.baseVal.width;
      const x = back(low + ((event.clientX - box.left) / unit - left) / (right - left) * (high - low));
      show(places.reduce((best, v, i) => (Math.abs(v - x) < Math.abs(places[best] - x) ? i : best), 0));
    });
    area.addEventListener("pointerleave", hide);
    area.addEventListener("focus", () => show(at));
    area.addEventListener("blur", hide);
    area.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined) return;
      show(at + step);
      event.preventDefault();
    });
  }

  function questions() {
    const boxes = [...document.querySelectorAll(".questions")].map((box) => ({ box, items: [...box.children], first: Number(box.dataset.first), more: box.nextElementSibling, all: false }));
    const words = new Map(boxes.flatMap(({ items }) => items.map((item) => [item, item.textContent.toLowerCase()])));
    const update = () => {
      const wanted = ($("find") ? $("find").value : "").trim().toLowerCase();
      for (const set of boxes) {
        let left = 0, shownCount = 0;
        for (const item of set.items) {
          const fits = !wanted || words.get(item).includes(wanted);
          item.hidden = !fits || (!wanted && !set.all && shownCount >= set.first);
          if (!item.hidden) shownCount++; else if (fits) left++;
        }
        set.more.hidden = !left;
        set.more.textContent = "Show " + left + " more";
      }
    };
    for (const set of boxes) set.more.addEventListener("click", () => { set.all = true; update(); });
    if ($("find")) $("find").addEventListener("input", update);
    update();
  }

  /* Families, a method with its controls, are sorted by their method; the third press restores the order of the runs. */
  function sortable(table) {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    const families = [...new Set(rows.map((row) => row.dataset.family))].map((f) => rows.filter((row) => row.dataset.family === f));
    const value = (row, k) => row.cells[k].dataset.value;
    const order = (k, a, b) => {
      const [one, other] = [value(a, k), value(b, k)];
      if (one === undefined || other === undefined) return 0;
      return k ? Number(one) - Number(other) : one.localeCompare(other);
    };
    heads.forEach((head, k) => head.firstElementChild.addEventListener("click", () => {
      const next = { undefined: "ascending", ascending: "descending" }[head.getAttribute("aria-sort") || undefined];
      for (const other of heads) other.removeAttribute("aria-sort");
      const absent = (row) => (value(row, k) === undefined ? 1 : 0), sign = next === "descending" ? -1 : 1;
      const by = (a, b) => absent(a) - absent(b) || sign * order(k, a, b);
      if (next) head.setAttribute("aria-sort", next);
      const sorted = next ? families.map(([first, ...rest]) => [first, ...rest.sort(by)]).sort((a, b) => by(a[0], b[0])).flat() : rows;
      body.replaceChildren(...sorted);
    }));
  }

  function copyable(button) {
    button.addEventListener("click", async () => {
      const pre = button.nextElementSibling;
      try { await navigator.clipboard.writeText(pre.textContent); } catch {
        const range = document.createRange();
        range.selectNodeContents(pre);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  if (data.tokens.records) tokenView(data.tokens);
  document.querySelectorAll(".chart[data-key]").forEach(readable);
  questions();
  document.querySelectorAll(".sortable").forEach(sortable);
  document.querySelectorAll(".copy").forEach(copyable);
  document.documentElement.dataset.ready = "yes";
})();
