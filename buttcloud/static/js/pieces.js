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
