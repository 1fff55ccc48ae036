// Sections that hold every word of ?q=..., those with a word in the heading first.
(() => {
  const query = new URLSearchParams(location.search).get("q") ?? "";
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return;
  const out = document.getElementById("found");
  const add = (parent, tag, text) => {
    const node = parent.appendChild(document.createElement(tag));
    node.textContent = text;
    return node;
  };
  const hits = [];
  for (const [address, chapter, heading, text] of JSON.parse(document.getElementById("sections").textContent)) {
    const top = `${chapter} ${heading}`.toLowerCase(), low = text.toLowerCase();
    if (!words.every(word => top.includes(word) || low.includes(word))) continue;
    const score = words.reduce(
      (sum, word) => sum + 20 * top.includes(word) + Math.min(low.split(word).length - 1, 10), 0);
    const at = Math.max(0, ...words.map(word => low.indexOf(word)));
    hits.push({ address, name: heading ? `${chapter}: ${heading}` : chapter, score,
      around: text.slice(Math.max(0, at - 80), at + 120) });
  }
  hits.sort((a, b) => b.score - a.score);
  add(out, "h2", hits.length ? `“${query}” in ${hits.length} sections` : `Nothing on “${query}”`);
  const list = add(out, "ol", "");
  for (const hit of hits.slice(0, 40)) {
    const item = add(list, "li", "");
    add(item, "a", hit.name).href = hit.address;
    add(item, "p", `… ${hit.around} …`);
  }
  document.querySelector("input[name=q]").value = query;
})();
