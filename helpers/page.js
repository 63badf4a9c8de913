let writing = false;
new MutationObserver(() => {
  const field = document.querySelector("#message textarea");
  const busy = !field || field.disabled || document.querySelector("#message .stop-button") !== null;
  const idle = document.activeElement === document.body && getSelection().isCollapsed;
  if (writing && !busy && idle) field.focus({preventScroll: true});
  writing = busy && field !== null;
}).observe(document, {subtree: true, childList: true, attributeFilter: ["disabled"]});
