// The least contrast of the texts that our style sheet colours, by the formula of WCAG 2.1; 0 where there is none.
() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const paper = canvas.getContext("2d", { willReadFrequently: true });
  const painted = (colours) => {
    paper.clearRect(0, 0, 1, 1);
    for (const colour of colours) {
      paper.fillStyle = colour;
      paper.fillRect(0, 0, 1, 1);
    }
    return [...paper.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) =>
    0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const grounds = (element) =>
    element ? [...grounds(element.parentElement), getComputedStyle(element).backgroundColor] : ["#fff"];
  const speaks = (element) =>
    [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  const contrast = (element) => {
    const behind = grounds(element);
    const one = luminance(painted(behind));
    const other = luminance(painted([...behind, getComputedStyle(element).color]));
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  };
  const texts = [...document.querySelectorAll('[class*="ns-"], .ns-table :is(td, th, a), .ns-card :is(a, p, dd)')];
  const found = texts.filter(speaks).map(contrast);
  return found.length ? Math.min(...found) : 0;
};
