// What is wrong with a page for people who read it by ear, by key or with tired eyes: a list of sentences, empty if all is well.
() => {
  const wrong = [];
  const seen = (element) => element.checkVisibility({ visibilityProperty: true });
  const words = (element) => element.outerHTML.slice(0, 120);
  const name = (element) =>
    element.ariaLabel || element.innerText?.trim() || element.title || element.querySelector("img")?.alt ||
    element.labels?.[0]?.innerText || "";

  if (!document.documentElement.lang) wrong.push("the page names no language");
  if (!document.title) wrong.push("the page has no title");
  const heads = [...document.querySelectorAll("h1")].filter(seen);
  if (heads.length !== 1) wrong.push(`the page has ${heads.length} main headings`);
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter(seen).map((head) => Number(head.tagName[1]));
  levels.forEach((level, i) => i && level > levels[i - 1] + 1 && wrong.push(`an h${level} follows an h${levels[i - 1]}`));
  if (!document.querySelector("main")) wrong.push("the page has no main part");

  for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
    if (!field.labels.length && !field.ariaLabel) wrong.push(`nothing labels ${words(field)}`);
  for (const image of document.querySelectorAll("img"))
    if (image.getAttribute("alt") === null) wrong.push(`no words for ${words(image)}`);
  for (const control of document.querySelectorAll("button, a[href], summary"))
    if (seen(control) && !name(control)) wrong.push(`no name for ${words(control)}`);
  for (const point of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
    for (const id of `${point.getAttribute("aria-labelledby") ?? ""} ${point.getAttribute("aria-describedby") ?? ""}`.split(" "))
      if (id && !document.getElementById(id)) wrong.push(`${words(point)} points to #${id}, which is not there`);
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) wrong.push(`#${id} is there twice`);

  // Contrast, as WCAG 2.2 counts it: 4.5 for text, 3 for large text.
  const rgba = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const over = (top, ground) => top.slice(0, 3).map((part, i) => part * (top[3] ?? 1) + ground[i] * (1 - (top[3] ?? 1)));
  const ground = (element) => {
    const own = rgba(getComputedStyle(element).backgroundColor);
    if ((own[3] ?? 1) === 1) return own;
    return over(own, element.parentElement ? ground(element.parentElement) : [255, 255, 255]);
  };
  const light = (color) =>
    color.slice(0, 3).map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const done = new Set();
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || done.has(element) || !seen(element)) continue;
    done.add(element);
    const style = getComputedStyle(element), behind = ground(element);
    const [low, high] = [light(over(rgba(style.color), behind)), light(behind)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05), size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < least) wrong.push(`contrast ${ratio.toFixed(2)} of ${words(element)}`);
  }
  return wrong;
}
