/* A flow that moves in the browser: particles drift in a table of velocities, on a canvas.

   No library, no network, no global name besides the functions of this script, which its page wraps
   in a function of its own. Time runs as in the book: 1 is noise, 0 is data. A table holds layers
   of velocities on a square grid, each entry one signed byte times the scale of its layer. */

const SIZE = 420; // pixels of the plane
const TICKS = "#606060";
const ARROWS = 12; // of the field, a side
const STEPS = 64; // Runge-Kutta steps of a path
const SECONDS = 6; // from t = 1 to t = 0
const LINES = 14; // particles that draw the line behind them
const REST = 1; // seconds at the end before it starts again

function unpack(table) {
  const bytes = Int8Array.from(atob(table.bytes), (letter) => letter.charCodeAt(0));
  return { ...table, bytes };
}

/* Bilinear value of one layer at (x, y); outside of the grid, the value at its edge. */
function lookUp({ bytes, cells, scales, reach }, layer, x, y) {
  const last = cells - 1;
  const place = (z) => Math.min(Math.max(((z / reach + 1) / 2) * last, 0), last);
  const [column, row] = [place(x), place(y)];
  const [i, j] = [Math.min(Math.floor(column), last - 1), Math.min(Math.floor(row), last - 1)];
  const [f, g] = [column - i, row - j];
  const corner = 2 * ((layer * cells + j) * cells + i);
  const mix = (k) =>
    (1 - g) * ((1 - f) * bytes[k] + f * bytes[k + 2]) +
    g * ((1 - f) * bytes[k + 2 * cells] + f * bytes[k + 2 * cells + 2]);
  return [scales[layer] * mix(corner), scales[layer] * mix(corner + 1)];
}

/* Which layers of `count` even times stand around t, and the weight of the later one. */
function between(t, count) {
  const place = Math.min(Math.max(t, 0), 1) * (count - 1);
  const k = Math.min(Math.floor(place), count - 2);
  return [k, place - k];
}

const blend = (a, b, f) => [(1 - f) * a[0] + f * b[0], (1 - f) * a[1] + f * b[1]];

/* v(x, y, t), linear between the layers. */
function velocityOf(table) {
  return (x, y, t) => {
    const [k, f] = between(t, table.scales.length);
    return blend(lookUp(table, k, x, y), lookUp(table, k + 1, x, y), f);
  };
}

/* u(x, y, r, t), whose layers are the pairs r <= t: (0,0), (0,1), (1,1), (0,2), ... */
function averageOf(table) {
  const count = (Math.sqrt(8 * table.scales.length + 1) - 1) / 2;
  const layer = (i, j) => (j * (j + 1)) / 2 + Math.min(i, j);
  return (x, y, r, t) => {
    const [[i, f], [j, g]] = [between(r, count), between(t, count)];
    const at = (j) =>
      blend(lookUp(table, layer(i, j), x, y), lookUp(table, layer(i + 1, j), x, y), f);
    return blend(at(j), at(j + 1), g);
  };
}

/* The path of (x, y) from time t to r, STEPS + 1 points, by the classical Runge-Kutta method. */
function trace(velocity, x, y, t, r) {
  const [path, h] = [[[x, y]], (r - t) / STEPS];
  for (let n = 0; n < STEPS; n++) {
    const now = t + n * h;
    const [a, b] = velocity(x, y, now);
    const [c, d] = velocity(x + (h / 2) * a, y + (h / 2) * b, now + h / 2);
    const [e, f] = velocity(x + (h / 2) * c, y + (h / 2) * d, now + h / 2);
    const [p, q] = velocity(x + h * e, y + h * f, now + h);
    x += (h / 6) * (a + 2 * c + 2 * e + p);
    y += (h / 6) * (b + 2 * d + 2 * f + q);
    path.push([x, y]);
  }
  return path;
}

/* Where on a path, from one end at 0 to the other at 1, a walker is. */
function along(path, progress) {
  const [k, f] = between(progress, path.length);
  return blend(path[k], path[k + 1], f);
}

/* The pen: shapes in the plane's own units, [-limit, limit] in both directions. */
function penOf(canvas, limit) {
  const pen = canvas.getContext("2d");
  const scale = SIZE / (2 * limit);
  const at = ([x, y]) => [(x + limit) * scale, (limit - y) * scale];
  const shapes = {
    circle: (x, y, s) => pen.arc(x, y, s, 0, 2 * Math.PI),
    triangle: (x, y, s) => pen.poly([x, y - s], [x + s, y + s], [x - s, y + s]),
    diamond: (x, y, s) => pen.poly([x, y - s], [x + s, y], [x, y + s], [x - s, y]),
  };
  pen.poly = (...corners) => {
    corners.forEach((corner, k) => (k ? pen.lineTo(...corner) : pen.moveTo(...corner)));
    pen.closePath();
  };
  const begin = (colour, width, alpha = 1) => {
    Object.assign(pen, { fillStyle: colour, strokeStyle: colour, lineWidth: width });
    pen.globalAlpha = alpha;
    pen.beginPath();
  };
  return {
    clear() {
      const ratio = canvas.width / SIZE; // screen pixels
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, SIZE, SIZE);
    },
    marks(points, shape, size, colour, alpha) {
      begin(colour, 1, alpha);
      for (const point of points) {
        const [x, y] = at(point);
        pen.moveTo(x, y);
        shapes[shape](x, y, size);
      }
      pen.fill();
    },
    ring(point, colour) {
      begin(colour, 2);
      pen.arc(...at(point), 8, 0, 2 * Math.PI);
      pen.stroke();
    },
    cross(point, size, colour) {
      const [x, y] = at(point);
      begin(colour, size / 2);
      for (const s of [size, -size]) {
        pen.moveTo(x - size, y - s);
        pen.lineTo(x + size, y + s);
      }
      pen.stroke();
    },
    line(points, colour, width, alpha) {
      begin(colour, width, alpha);
      points.map(at).forEach((point, k) => (k ? pen.lineTo(...point) : pen.moveTo(...point)));
      pen.stroke();
    },
    arrow(tail, tip, colour, width, alpha) {
      const [[x, y], [p, q]] = [at(tail), at(tip)];
      const length = Math.hypot(p - x, q - y);
      const head = Math.min(4.5 * width, length);
      if (length < 0.5) return;
      const [a, b] = [((p - x) / length) * head, ((q - y) / length) * head];
      begin(colour, width, alpha);
      pen.moveTo(x, y);
      pen.lineTo(p - a / 2, q - b / 2);
      pen.stroke();
      pen.beginPath();
      pen.poly([p, q], [p - a - b / 2, q - b + a / 2], [p - a + b / 2, q - b - a / 2]);
      pen.fill();
    },
    ticks(colour) {
      const [low, middle, high] = [4, SIZE / 2 + 4, SIZE - 4];
      begin(colour, 1);
      pen.font = "12px sans-serif";
      pen.fillText(`−${limit}`, low, high);
      pen.fillText("0", middle - 8, high);
      pen.fillText(`${limit}`, high - 7, high);
      pen.fillText("0", low, middle);
      pen.fillText(`${limit}`, low, 14);
    },
  };
}

function make(tag, parent, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  return parent.appendChild(element);
}

/* A canvas over the target density, a line of words under it, and what its signs mean. */
function panelOf(parent, data, legend, attributes) {
  const panel = make("div", parent, {}, { style: `flex:0 1 ${SIZE}px` });
  const canvas = make("canvas", panel, {}, {
    ...attributes,
    style:
      "display:block;width:100%;box-sizing:border-box;border:1px solid #b0b0b0;" +
      `background:white url(${data.backdrop}) 0 0/100% 100%`,
  });
  canvas.width = canvas.height = SIZE * Math.max(1, Math.min(2, devicePixelRatio));
  const words = make("div", panel);
  const signs = make("small", panel, {}, { style: "display:block" });
  for (const [sign, colour, text] of legend) {
    const entry = make("span", signs, {}, { style: "white-space:nowrap;margin-right:1.2em" });
    make("b", entry, { textContent: sign }, { style: `color:${colour}`, "aria-hidden": "true" });
    entry.append(` ${text}`);
    signs.append(" ");
  }
  return { canvas, words, pen: penOf(canvas, data.limit) };
}

/* A slider with its name and value beside it; `moved` hears of the reader's moves. */
function sliderOf(parent, name, value, moved, shown = (z) => z.toFixed(2), range = [0, 1, 0.01]) {
  const label = make("label", parent, {}, { style: "display:flex;gap:.6em;align-items:center" });
  const [min, max, step] = range;
  const input = make("input", label, { type: "range", min, max, step });
  const number = make("span", label, {}, { style: "font-variant-numeric:tabular-nums" });
  make("span", label, { textContent: name });
  const slider = {
    get value() {
      return Number(input.value);
    },
    set value(value) {
      input.value = value;
      number.textContent = shown(slider.value);
      input.setAttribute("aria-valuetext", number.textContent);
    },
  };
  slider.value = value;
  input.oninput = () => {
    slider.value = input.value;
    moved();
  };
  return slider;
}

/* A button that lets `advance(seconds)` run at the screen's rate while the canvas is in sight. */
function runner(button, canvas, advance) {
  let [playing, visible, before, waiting] = [false, false, null, null];
  function run() {
    if (playing && visible) waiting ??= requestAnimationFrame(frame);
    else before = null;
  }
  function frame(time) {
    waiting = null;
    advance(before === null ? 0 : Math.min(time - before, 100) / 1000);
    before = time;
    run();
  }
  function play(wanted) {
    playing = wanted;
    button.textContent = playing ? "Pause" : "Play";
    run();
  }
  button.onclick = () => play(!playing);
  new IntersectionObserver((entries) => {
    visible = entries[entries.length - 1].isIntersecting;
    run();
  }).observe(canvas);
  return play;
}

/* A point that follows the mouse, the finger and the arrow keys; `moved` hears where it goes. */
function draggable(canvas, point, limit, moved) {
  let held = null; // by which mouse or finger
  function moveTo(x, y) {
    const inside = (z) => Math.min(Math.max(z, -limit), limit);
    point = [inside(x), inside(y)];
    moved(point);
  }
  function placeOf(event) {
    const box = canvas.getBoundingClientRect();
    const at = (share) => limit * (2 * share - 1);
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    return [at(left / box.width), -at(top / box.height)];
  }
  const near = ([x, y]) => Math.hypot(x - point[0], y - point[1]) < limit / 6;
  canvas.onpointerdown = (event) => {
    const place = placeOf(event);
    // A finger may want to scroll the page: it has to take hold of the point.
    if (event.pointerType === "touch" && !near(place)) return;
    held = event.pointerId;
    canvas.setPointerCapture(held); // also out of the picture
    moveTo(...place);
  };
  canvas.onpointermove = (event) => {
    if (event.pointerId === held) moveTo(...placeOf(event));
  };
  canvas.onpointerup = canvas.onpointercancel = () => {
    held = null;
  };
  const hold = (event) => near(placeOf(event.touches[0])) && event.preventDefault();
  canvas.addEventListener("touchstart", hold, { passive: false });
  canvas.onkeydown = (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (!(event.key in steps)) return;
    event.preventDefault(); // the page would scroll
    const size = limit / (event.shiftKey ? 6 : 30);
    moveTo(...point.map((z, k) => z + size * steps[event.key][k]));
  };
}

/* Put the moving picture in the place of the still one in `figure`. */
function flowCanvas(figure, data) {
  const { colours, interval, limit } = data;
  const velocity = velocityOf(unpack(data.velocity));
  const learnt = data.average && averageOf(unpack(data.average));
  const paths = data.noise.map(([x, y]) => trace(velocity, x, y, 1, 0));
  const ends = paths.map((path) => path[STEPS]);
  let [point, now, rest] = [data.point, 1, 0];
  let drawn; // what follows from the point and the interval

  /* Where one step of u takes a from time t to r; the true u takes it to the end of its path. */
  const jump = (a, r, t, end) => (learnt ? step(a, learnt(...a, r, t), t - r) : end);
  const step = (a, v, time) => [a[0] - time * v[0], a[1] - time * v[1]];
  const once = interval && paths.map((path, k) => jump(path[0], 0, 1, ends[k]));

  const stage = make("div", figure, {}, { "data-lm-suppress-shortcuts": "true" });
  const panels = make("div", stage, {}, { style: "display:flex;flex-wrap:wrap;gap:1em" });
  const left = panelOf(panels, data, data.legends[0], {
    tabindex: 0,
    role: "application",
    "aria-label": `${data.name}. ${data.alt} The arrow keys move the ringed point.`,
  });
  left.canvas.style.cursor = "crosshair";
  const right = panelOf(panels, data, data.legends[1], {
    role: "img",
    "aria-label": "Where Euler steps land",
  });
  left.words.ariaLive = "polite";
  const button = make("button", stage, { type: "button" }, { style: "min-width:5em" });
  const play = runner(button, left.canvas, advance);
  const clock = sliderOf(stage, interval ? "time of the particles" : "t: time", 1, () => {
    play(false);
    set(clock.value);
  });
  const [r, t] = interval
    ? [
        sliderOf(stage, "r: start of the interval", interval[0], () => {
          t.value = Math.max(t.value, r.value);
          change();
        }),
        sliderOf(stage, "t: its end", interval[1], () => {
          r.value = Math.min(t.value, r.value);
          change();
        }),
      ]
    : [{ value: 0 }, { value: 1 }];
  const last = data.steps.length - 1;
  const n = sliderOf(stage, "n: Euler steps", data.start, draw, (k) => data.steps[k], [0, last, 1]);
  draggable(left.canvas, point, limit, (place) => {
    point = place;
    change();
  });

  /* The point or the interval is another one. */
  function change() {
    const [from, to] = [t.value, r.value];
    const path = trace(velocity, ...point, from, to);
    const starts = paths.map((path) => along(path, 1 - from));
    drawn = {
      path,
      euler: step(point, velocity(...point, from), from - to),
      once: jump(point, to, from, path[STEPS]),
      starts,
      jumps: starts.map((a, k) => jump(a, to, from, along(paths[k], 1 - to))),
    };
    const written = ([x, y]) => `(${x.toFixed(2)}, ${y.toFixed(2)})`;
    left.words.textContent =
      `${written(point)} at t = ${from.toFixed(2)} flows to ${written(path[STEPS])} ` +
      `at ${interval ? "r" : "t"} = ${to.toFixed(2)}; one Euler step of v lands on ` +
      written(drawn.euler) +
      (interval ? `, one step of u on ${written(drawn.once)}.` : ".");
    set(now);
  }

  /* The time is another one. */
  function set(time) {
    now = Math.min(Math.max(time, r.value), t.value);
    clock.value = now;
    draw();
  }

  function advance(seconds) {
    if (now > r.value) set(now - seconds / SECONDS);
    else if ((rest += seconds) > REST) {
      rest = 0;
      set(t.value);
    }
  }

  function draw() {
    drawFlow(left.pen);
    drawPromise(right.pen);
  }

  /* Left: the field, the particles, and the point with its path and its jumps. */
  function drawFlow(pen) {
    const [from, to] = [t.value, r.value];
    const progress = from > to ? (from - now) / (from - to) : 0;
    const flowing = paths.map((path) => along(path, 1 - now));
    pen.clear();
    drawArrows(pen);
    pen.ticks(TICKS);
    if (interval) {
      const straight = drawn.starts.map((a, k) => blend(a, drawn.jumps[k], progress));
      pen.marks(flowing, "triangle", 2.5, colours.flow, 0.9);
      pen.marks(straight, "diamond", 3, colours.average, 0.7);
      pen.arrow(point, drawn.once, colours.average, 3.5, 1);
    } else {
      for (const path of paths.slice(0, LINES)) {
        const behind = path.slice(0, Math.ceil((1 - now) * STEPS));
        pen.line([...behind, along(path, 1 - now)], colours.reference, 0.8, 0.5);
      }
      pen.marks(flowing, "circle", 2.5, colours.noise, 0.9);
    }
    pen.arrow(point, drawn.euler, colours.flow, 2.5, 1);
    pen.line(drawn.path, colours.reference, 1.8, 1);
    pen.cross(drawn.path[STEPS], 5, colours.reference);
    pen.marks([along(drawn.path, progress)], "circle", 4.5, colours.noise, 1);
    pen.ring(point, colours.reference);
  }

  /* Arrows of -v, which point the way a sampler moves. */
  function drawArrows(pen) {
    const at = (index) => limit * ((2 * index + 1) / ARROWS - 1);
    for (let k = 0; k < ARROWS * ARROWS; k++) {
      const tail = [at(k % ARROWS), at(Math.floor(k / ARROWS))];
      pen.arrow(tail, step(tail, velocity(...tail, now), 0.13), colours.flow, 1.3, 0.55);
    }
  }

  /* Right: where n Euler steps take the particles from now; beside one step of u, from t = 1. */
  function drawPromise(pen) {
    const [from, count] = [interval ? 1 : now, data.steps[n.value]];
    const landed = paths.map((path) => {
      let a = along(path, 1 - from);
      for (let k = count; k > 0; k--) a = step(a, velocity(...a, (from * k) / count), from / count);
      return a;
    });
    const off = (points) =>
      (points.reduce((sum, [x, y], k) => sum + Math.hypot(x - ends[k][0], y - ends[k][1]), 0) /
        points.length).toFixed(2);
    pen.clear();
    pen.ticks(TICKS);
    if (!interval) ends.forEach((end) => pen.cross(end, 2, colours.reference));
    pen.marks(landed, "triangle", interval ? 4 : 3, colours.flow, interval ? 0.6 : 0.9);
    if (interval) pen.marks(once, "diamond", 2.5, colours.average, 1); // smaller, on top
    right.words.textContent =
      `${count} Euler step${count > 1 ? "s" : ""} ` +
      `from t = ${from.toFixed(2)}: off by ${off(landed)}` +
      (interval ? `; one step of u: off by ${off(once)}` : "");
  }

  figure.trace = (x, y, t, r) => trace(velocity, x, y, t, r); // for tests
  change();
  play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  figure.querySelectorAll(".still").forEach((element) => element.remove());
}
