// Pieces of the page, drawn by the server: HTML only ever comes from our own templates.

export function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim();
  return template.content.firstElementChild;
}

export async function ask(url, options = {}) {
  const response = await fetch(url, { ...options, headers: { "X-Requested-With": "fetch" } });
  // A session that has ended redirects to the sign-in page: go there as a whole.
  if (response.redirected) location.reload();
  return { status: response.status, html: await response.text() };
}

// Changes only what differs: a selection, the focus, an open fold and the place of a screen reader stay where they are.
export function become(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) return retype(old, fresh.data);
  // What a reader opened, or chose, is the reader's.
  for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (old.matches("[data-copy]")) return; // for a moment it says what it did
  let here = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = sameFrom(here, child);
    if (!same) {
      old.insertBefore(child, here);
      continue;
    }
    while (here !== same) here = drop(here);
    become(same, child);
    here = same.nextSibling;
  }
  while (here) here = drop(here);
}

// The first of these siblings that is the same piece. Texts have no name: only the very next one can be it.
function sameFrom(here, child) {
  if (child.nodeType === Node.TEXT_NODE) return here?.nodeType === Node.TEXT_NODE ? here : null;
  for (let each = here; each; each = each.nextSibling) {
    if (each.nodeName === child.nodeName && each.id === child.id) return each;
  }
  return null;
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

// Only the letters that differ, so that what is marked around them stays marked.
function retype(node, text) {
  const most = Math.min(node.length, text.length);
  let start = 0, end = 0;
  while (start < most && node.data[start] === text[start]) start += 1;
  while (end < most - start && node.data.at(-1 - end) === text.at(-1 - end)) end += 1;
  if (start + end < Math.max(node.length, text.length)) node.replaceData(start, node.length - start - end, text.slice(start, text.length - end));
}
