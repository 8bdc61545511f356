// What every page of ours does beside links and forms. Nothing here is needed to read or to decide: without scripts the
// pages say the same and their forms work.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);

  // "Mine" in the switch of times is the browser's zone, unless the person has chosen another.
  const zone = encodeURIComponent(Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC");
  if (!document.cookie.split("; ").includes(`browser_zone=${zone}`)) {
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `browser_zone=${zone}; path=/; max-age=31536000; samesite=lax${secure}`;
  }

  // The menu on narrow screens lies over the page: it closes by Escape, by a click beside it, and when one goes on.
  const side = $("#menu");
  const opener = $("[data-menu]");
  const isMenuOpen = () => side && side.classList.contains("ns-open");
  function showMenu(open) {
    side.classList.toggle("ns-open", open);
    opener.setAttribute("aria-expanded", String(open));
  }
  if (opener) opener.addEventListener("click", () => {
    showMenu(!isMenuOpen());
    (isMenuOpen() ? $("a", side) : opener).focus();
  });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape" && isMenuOpen()) { showMenu(false); opener.focus(); }
  });
  document.addEventListener("click", event => {
    // The veil beside the menu is a part of it, so that nothing below is clicked.
    if (isMenuOpen() && event.target === side && event.clientX > side.getBoundingClientRect().right) showMenu(false);
  });
  document.addEventListener("focusin", event => {
    if (isMenuOpen() && !side.contains(event.target) && !opener.contains(event.target)) showMenu(false);
  });

  // Light, dark, as the system.
  const markTheme = () => document.querySelectorAll("[data-theme]").forEach(button => {
    button.setAttribute("aria-pressed", String(button.dataset.theme === window.nsTheme.chosen()));
  });
  document.addEventListener("click", event => {
    const button = event.target.closest("[data-theme]");
    if (!button) return;
    window.nsTheme.choose(button.dataset.theme);
    markTheme();
    document.dispatchEvent(new CustomEvent("ns:theme"));
  });
  markTheme();

  // A menu of the header closes when something else is clicked or comes into focus, or by Escape.
  for (const happening of ["click", "focusin"]) document.addEventListener(happening, event => {
    document.querySelectorAll("details.ns-menu[open]").forEach(menu => {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "Escape") return;
    const menu = event.target.closest("details[open].ns-menu, details[open].ns-confirm");
    if (menu) { menu.open = false; $("summary", menu).focus(); }
  });

  // A select that acts at once. Its form has a button for those without scripts. By keyboard every arrow is a change:
  // there it acts on Enter, or when it is left. Afterwards one stands where one stood.
  const STOOD = "ns-stood";
  let byKeys = false;
  function submitChoice(select) {
    sessionStorage.setItem(STOOD, select.id);
    select.form.requestSubmit();
  }
  const isChanged = select => select.matches("[data-submits]") && [...select.options].some(each => each.selected !== each.defaultSelected);
  document.addEventListener("pointerdown", () => { byKeys = false; });
  document.addEventListener("keydown", event => {
    byKeys = true;
    if (event.key === "Enter" && event.target.matches("select[data-submits]") && isChanged(event.target)) {
      event.preventDefault();
      submitChoice(event.target);
    }
  });
  document.addEventListener("change", event => {
    if (event.target.matches("[data-submits]") && !byKeys) submitChoice(event.target);
  });
  document.addEventListener("focusout", event => {
    if (byKeys && event.target.matches("select[data-submits]") && isChanged(event.target)) submitChoice(event.target);
  });
  const stood = document.getElementById(sessionStorage.getItem(STOOD) || "");
  sessionStorage.removeItem(STOOD);
  if (stood) (stood.closest("details") ? $("summary", stood.closest("details")) : stood).focus();

  // One modal for the whole page: what htmx puts into it opens it, an answer that leaves it empty closes it. Whoever
  // closes it stands where it was opened, or at the button of the menu in which that was.
  const modal = $("#modal");
  const trouble = $("#trouble");
  const signedOut = $("#signed-out");
  const said = $("#said");
  let opened = null;
  if (modal) {
    document.body.addEventListener("htmx:afterSwap", event => {
      if (event.detail.target.id !== "modal-content") return;
      if (!event.detail.target.innerHTML.trim()) { modal.close(); return; }
      if (!modal.open) {
        const menu = document.activeElement.closest("[popover]");
        opened = menu ? $(`[popovertarget="${menu.id}"]`) : document.activeElement;
        modal.showModal();
        modal.append(said); // nothing beside an open modal is read out
      }
      const first = $("[autofocus], h1, h2", event.detail.target);
      if (first) { if (!first.matches("[autofocus]")) first.tabIndex = -1; first.focus(); }
    });
    // The next step of a wizard is seen from its beginning.
    document.body.addEventListener("htmx:afterSettle", event => {
      if (modal.open && event.detail.target.id === "wizard" && $("#step-title[autofocus]", event.detail.target)) modal.scrollTop = 0;
    });
    modal.addEventListener("click", event => {
      if (event.target.closest("[data-close]")) modal.close();
    });
    modal.addEventListener("close", () => {
      $("#modal-content").innerHTML = "";
      document.body.append(said, trouble, signedOut);
      if (opened) opened.focus();
    });
  }

  // What is read out to people who don't see the page is said once: the same words again are not put in anew.
  document.addEventListener("htmx:oobBeforeSwap", event => {
    const { target, fragment } = event.detail;
    if (target === said && said.textContent.trim() === fragment.textContent.trim()) event.detail.shouldSwap = false;
  });

  // Whatever goes wrong on the way is said in words, with the id under which the logs know the request.
  function tell(words, xhr) {
    const id = xhr && xhr.getResponseHeader("X-Request-ID");
    $("p", trouble).textContent = id ? `${words} (${trouble.dataset.request} ${id})` : words;
    show(trouble);
  }
  document.addEventListener("click", event => {
    if (event.target.closest("[data-dismiss]")) event.target.closest(".ns-trouble").hidden = true;
  });
  // Nothing beside an open modal can be seen or reached.
  function show(words) {
    (modal && modal.open ? modal : document.body).append(words);
    words.hidden = false;
  }
  document.body.addEventListener("htmx:responseError", event => {
    const status = event.detail.xhr.status;
    if (status === 401) { leave(); return; }
    if (status === 403) ask();
    tell(status === 403 ? trouble.dataset.forbidden : trouble.dataset.failed, event.detail.xhr);
  });
  document.body.addEventListener("htmx:sendError", () => tell(trouble.dataset.away));

  // A part of a page that did not come says so in its place, where it is asked for again.
  function tellOfPart(part, isMissing) {
    const words = $(":scope > [data-missing]", part);
    if (!words) return;
    words.hidden = !isMissing;
    $(":scope > [data-waits]", part).hidden = isMissing;
  }
  for (const happening of ["htmx:responseError", "htmx:sendError"]) {
    document.body.addEventListener(happening, event => tellOfPart(event.detail.elt, true));
  }
  document.body.addEventListener("htmx:beforeRequest", event => tellOfPart(event.detail.elt, false));

  document.body.addEventListener("htmx:afterRequest", event => {
    if (event.detail.successful) {
      trouble.hidden = true;
      known = Date.now();
    }
  });

  // A session may end while its page is open. Nothing is swapped then, what the page asks for by itself rests, and what
  // was typed stays until somebody has signed in in another tab, which gives every form another token.
  let isOut = false;
  // When the server last knew who asks. A form that is sent sooner than this after it goes as browsers send it.
  const SURE_MS = 5 * 60 * 1000;
  let known = Date.now();
  function leave() {
    isOut = true;
    show(signedOut);
  }
  // Whether somebody is signed in; undefined where nobody can say.
  async function ask() {
    const answer = await fetch(signedOut.dataset.here, { headers: { "HX-Request": "true" } }).catch(() => null);
    if (answer && answer.status === 401) { leave(); return false; }
    if (!answer || !answer.ok) return undefined;
    const { token } = await answer.json();
    document.body.setAttribute("hx-headers", JSON.stringify({ "X-CSRFToken": token }));
    document.querySelectorAll("[name=csrfmiddlewaretoken]").forEach(field => { field.value = token; });
    isOut = false;
    known = Date.now();
    signedOut.hidden = true;
    return true;
  }
  async function whenIn(goOn) {
    const isIn = await ask();
    if (isIn) goOn();
    else if (isIn === undefined) tell(trouble.dataset.away);
  }
  window.addEventListener("focus", () => ask());
  document.body.addEventListener("htmx:confirm", event => {
    if (!isOut) return;
    event.preventDefault();
    if (event.detail.triggeringEvent) whenIn(() => event.detail.issueRequest(true));
  });
  // Forms that leave the page take along what was typed, so those of a page that has stood for a while ask first.
  const asking = new WeakSet();
  const asked = new WeakSet();
  document.addEventListener("submit", event => {
    const { target: form, submitter } = event;
    const goesElsewhere = form.hasAttribute("target") || (submitter && submitter.hasAttribute("formtarget"));
    if (event.defaultPrevented || goesElsewhere || form.getAttribute("method") !== "post" || asked.delete(form)) return;
    if (!isOut && Date.now() - known < SURE_MS) return;
    event.preventDefault();
    if (asking.has(form)) return;
    asking.add(form);
    whenIn(() => {
      // What was shown meanwhile may have taken the form's place.
      const shown = form.isConnected ? form : form.id && document.getElementById(form.id);
      if (!shown) return;
      asked.add(shown);
      shown.requestSubmit(submitter && submitter.isConnected ? submitter : null);
    }).finally(() => asking.delete(form));
  });

  // What somebody types while an answer is on its way stays, though the answer was made without it.
  const typed = new Map();
  document.body.addEventListener("htmx:beforeRequest", () => typed.clear());
  document.addEventListener("input", event => {
    if (event.target.id && "value" in event.target && !event.target.matches("[type=checkbox], [type=radio]")) typed.set(event.target.id, event.target.value);
  });
  document.body.addEventListener("htmx:afterSwap", event => {
    for (const [id, value] of typed) {
      const field = document.getElementById(id);
      if (field && field.value !== value && event.detail.target.contains(field)) field.value = value;
    }
  });

  // What was wrong with a field is said of its former value: it goes once somebody changes it, and so does the summary
  // above the form with the last of them. Of two fields in one line the other's goes too, if something stands in it.
  function forget(field) {
    field.classList.remove("ns-invalid");
    field.querySelectorAll("[aria-invalid]").forEach(input => input.removeAttribute("aria-invalid"));
    field.querySelectorAll(":scope > .ns-error").forEach(words => words.remove());
  }
  document.addEventListener("input", event => {
    const form = event.target.form;
    if (!form) return;
    const own = event.target.closest(".ns-invalid");
    if (own) forget(own);
    const pair = event.target.closest(".ns-w-pair");
    if (pair) pair.querySelectorAll(".ns-invalid").forEach(field => { if ($("input, select", field).value) forget(field); });
    const summary = $("[data-invalid]", form);
    if (summary && !$(".ns-invalid", form)) summary.remove();
  });

  // Forms that were answered with their errors (422) are shown like any other answer.
  document.body.addEventListener("htmx:beforeSwap", event => {
    if (event.detail.xhr.status === 422) { event.detail.shouldSwap = true; event.detail.isError = false; }
  });

  // Whoever stands in a part that is made anew stands there again, at the same control of it or the one that has come
  // into its place; and what was unfolded stays so.
  const CONTROLS = "a[href], button, input:not([type=hidden]), select, textarea, summary";
  let before = { places: [], unfolded: [] };
  function placesOf(control) {
    const found = [];
    for (let part = control.closest("[id]"); part; part = part.parentElement && part.parentElement.closest("[id]")) {
      found.push([part.id, [...part.querySelectorAll(CONTROLS)].indexOf(control)]);
    }
    return found;
  }
  const at = ([id, place]) => { const part = document.getElementById(id); return part && part.querySelectorAll(CONTROLS)[place]; };
  document.body.addEventListener("htmx:beforeSwap", event => {
    const { target } = event.detail;
    before = {
      places: target.contains(document.activeElement) ? placesOf(document.activeElement) : [],
      unfolded: [...target.querySelectorAll("details[open] > summary")].map(each => [each.textContent, placesOf(each)[0]]),
    };
  });
  document.body.addEventListener("htmx:afterSettle", () => {
    for (const [words, place] of before.unfolded) {
      const summary = place && at(place);
      if (summary && summary.matches("summary") && summary.textContent === words) summary.parentElement.open = true;
    }
    if (document.activeElement === document.body) {
      const control = before.places.map(at).find(Boolean);
      if (control) control.focus();
    }
    before = { places: [], unfolded: [] };
  });

  // Whoever is told what is wrong stands where it is mended.
  const wrong = root => { const field = $("[aria-invalid=true]:not([type=hidden])", root); if (field) field.focus(); };
  document.body.addEventListener("htmx:afterSettle", event => {
    if (event.detail.xhr && event.detail.xhr.status === 422) wrong(document.getElementById(event.detail.target.id) || document);
  });
  wrong(document);
})();
