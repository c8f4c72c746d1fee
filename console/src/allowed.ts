// Styles under a policy that allows none but those in files.
//
// The terminal writes `<style>` elements and `style` attributes, which the policy refuses. While it
// is loaded the same rules come by ways that need no text in the page; nothing else here has any.

HTMLSpanElement.prototype.setAttribute = function (name: string, value: string): void {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
};

document.createElement = (name: string, options?: ElementCreationOptions) =>
  name === "style" ? sheet() : Document.prototype.createElement.call(document, name, options);

/** In place of a `<style>`: what is its text becomes a sheet of the document's own. */
function sheet(): HTMLElement {
  const element = Document.prototype.createElement.call(document, "span");
  element.hidden = true;
  const rules = new CSSStyleSheet();
  document.adoptedStyleSheets.push(rules);
  let text = "";
  Object.defineProperty(element, "textContent", {
    get: () => text,
    set: (value: string) => {
      text = value;
      rules.replaceSync(value);
    },
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== rules);
    Element.prototype.remove.call(element);
  };
  return element;
}
