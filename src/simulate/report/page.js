"use strict";
// What a stripe says, beside the pointer and inside the window.
const tip = document.getElementById("tip");
document.addEventListener("pointermove", (event) => {
  const text = event.target.dataset && event.target.dataset.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  const right = event.clientX + 16 + box.width > innerWidth;
  const low = event.clientY + 16 + box.height > innerHeight;
  tip.style.left = Math.max(4, right ? event.clientX - 12 - box.width : event.clientX + 16) + "px";
  tip.style.top = Math.max(4, low ? event.clientY - 12 - box.height : event.clientY + 16) + "px";
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });
