// window.easel, which the page's scripts share; and how they make elements: data only ever becomes text.
window.easel = {
  // Of the attributes a function is a listener, true is the bare name, and false leaves it out.
  make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  },
};
