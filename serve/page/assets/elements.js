// Pieces of the document. Texts from the server are only ever set as text, never as markup.

export const find = (id) => document.getElementById(id);

export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A list of texts with cosines, as bars.
export function bars(list, rows) {
  list.replaceChildren(
    ...rows.map(({ text, cosine, chosen }) => {
      const item = element("li", "", chosen ? { class: "chosen" } : {});
      const meter = element("meter", "", { min: 0, max: 1, value: Math.max(0, cosine) });
      item.append(element("span", text), element("span", cosine.toFixed(3)), meter);
      return item;
    }),
  );
}
