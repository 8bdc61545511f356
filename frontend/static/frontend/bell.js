/* <notification-bell>: a person's in-app inbox on any page. docs/in-app.md says how to put it there.
 *
 * One file without dependencies. It needs no inline script or style, so it works under a strict Content-Security-Policy
 * that lets in this script and, by connect-src, the service. The token never stands in an address or an attribute.
 */
(() => {
  "use strict";

  const PAGE = 20;
  // Milliseconds.
  const FIRST_PAUSE = 1000, LONGEST_PAUSE = 60000, PATIENCE = 50000, HIDDEN = 30000, RESTART_SPREAD = 5000, SPOKEN = 500;
  const ATTRIBUTES = ["src", "stream", "lang"];

  const WORDS = {
    en: {
      title: "Notifications",
      bell: (unread) => (unread ? `Notifications, ${unread} unread` : "Notifications"),
      readAll: "Mark all read",
      read: "Mark read",
      unread: "Mark unread",
      archive: "Archive",
      isUnread: "Unread",
      now: "just now",
      more: "Show more",
      empty: "Nothing here yet.",
      loading: "Loading …",
      away: "No connection. Trying again …",
      signedOut: "You are not signed in any more.",
      refused: "These notifications can’t be shown to you.",
      failed: "That did not work. Try again.",
      close: "Close",
      arrived: (titles) => (titles.length === 1 ? `New notification: ${titles[0]}` : `${titles.length} new notifications`),
    },
    de: {
      title: "Mitteilungen",
      bell: (unread) => (unread ? `Mitteilungen, ${unread} ungelesen` : "Mitteilungen"),
      readAll: "Alle gelesen",
      read: "Als gelesen markieren",
      unread: "Als ungelesen markieren",
      archive: "Archivieren",
      isUnread: "Ungelesen",
      now: "gerade eben",
      more: "Mehr anzeigen",
      empty: "Hier ist noch nichts.",
      loading: "Wird geladen …",
      away: "Keine Verbindung. Neuer Versuch …",
      signedOut: "Die Anmeldung ist abgelaufen.",
      refused: "Diese Mitteilungen können hier nicht gezeigt werden.",
      failed: "Das hat nicht geklappt. Bitte noch einmal versuchen.",
      close: "Schließen",
      arrived: (titles) => (titles.length === 1 ? `Neue Mitteilung: ${titles[0]}` : `${titles.length} neue Mitteilungen`),
    },
  };

  const LIGHT = `--_bg: #fff; --_text: #1f2430; --_muted: #5a6272; --_border: #d5d9e0; --_new: #eef3ff; --_accent: #1d4ed8;`;
  const DARK = `--_bg: #171a21; --_text: #eceef2; --_muted: #a5adbb; --_border: #3a4150; --_new: #1f2a44; --_accent: #93b4ff;`;
  const STYLE = `
    :host { ${LIGHT} color-scheme: light; display: inline-block; position: relative; line-height: 1.4;
      font-family: var(--bell-font, system-ui, sans-serif); font-size: 1rem; }
    @media (prefers-color-scheme: dark) { :host(:not([theme="light"])) { ${DARK} color-scheme: dark; } }
    :host([theme="dark"]) { ${DARK} color-scheme: dark; }
    :host([hidden]), [hidden] { display: none !important; }
    * { box-sizing: border-box; }
    button { font: inherit; color: inherit; background: none; border: 0; cursor: pointer; border-radius: 6px; }
    :focus-visible { outline: 2px solid var(--bell-accent, var(--_accent)); outline-offset: 2px; }
    .bell { position: relative; display: grid; place-items: center; width: var(--bell-size, 44px);
      height: var(--bell-size, 44px); padding: 0; color: var(--bell-color, currentColor); }
    .bell svg { width: 60%; height: 60%; fill: none; stroke: currentColor; stroke-width: 1.8;
      stroke-linecap: round; stroke-linejoin: round; }
    .badge { position: absolute; top: 2px; inset-inline-end: 0; min-width: 1.5em; padding: 0 .35em; border-radius: 1em;
      font-size: .72rem; font-weight: 700; line-height: 1.5em; text-align: center;
      color: var(--bell-badge-text, #fff); background: var(--bell-badge-bg, #b91c1c); }
    .panel { position: absolute; z-index: var(--bell-z, 1000); top: calc(100% + 8px); inset-inline-end: 0;
      display: flex; flex-direction: column; overflow: hidden; width: min(var(--bell-width, 380px), calc(100vw - 16px));
      max-height: min(70vh, 560px); color: var(--bell-text, var(--_text)); background: var(--bell-bg, var(--_bg));
      border: 1px solid var(--bell-border, var(--_border)); border-radius: var(--bell-radius, 12px);
      box-shadow: 0 12px 32px rgb(0 0 0 / .22); text-align: start; }
    .panel.from-start { inset-inline: 0 auto; }
    @media (max-width: 480px) { .panel, .panel.from-start { position: fixed; inset: auto 8px 8px; width: auto; max-height: 80vh; } }
    header { display: flex; align-items: center; gap: 8px; padding: 10px 14px;
      border-bottom: 1px solid var(--bell-border, var(--_border)); }
    h2 { flex: 1; margin: 0; font-size: 1rem; }
    .act { padding: 4px 8px; min-height: 28px; font-size: .82rem; color: var(--bell-accent, var(--_accent)); }
    .act:hover { text-decoration: underline; }
    .scroll { overflow-y: auto; overscroll-behavior: contain; }
    ul { margin: 0; padding: 0; list-style: none; }
    li { padding: 10px 14px; border-bottom: 1px solid var(--bell-border, var(--_border)); outline-offset: -2px; }
    li.new { background: var(--bell-unread-bg, var(--_new)); }
    h3 { margin: 0; font-size: .95rem; font-weight: 500; overflow-wrap: anywhere; }
    li.new h3 { font-weight: 700; }
    .body { margin: 2px 0 4px; font-size: .9rem; white-space: pre-line; overflow-wrap: anywhere; }
    .body a { color: var(--bell-accent, var(--_accent)); }
    .foot { display: flex; flex-wrap: wrap; align-items: center; gap: 4px; }
    time { flex: 1 0 auto; white-space: nowrap; font-size: .8rem; color: var(--bell-muted, var(--_muted)); }
    .note { margin: 0; padding: 14px; font-size: .9rem; color: var(--bell-muted, var(--_muted)); }
    .more { width: 100%; padding: 10px; }
    .heard { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
    @media (forced-colors: active) { li.new { border-inline-start: 4px solid; } .badge { border: 1px solid; } }
  `;

  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);

  function made(name, properties = {}, ...children) {
    const element = document.createElement(name);
    const { attributes = {}, ...rest } = properties;
    Object.assign(element, rest);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function picture() {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", "M6 9a6 6 0 0 1 12 0c0 6 2.5 7 2.5 7h-17S6 15 6 9M10 20a2.2 2.2 0 0 0 4 0");
    svg.append(path);
    return svg;
  }

  /** The text with its http(s) addresses as links; everything else stays text. */
  function linked(text) {
    const parts = [];
    let last = 0;
    for (const found of text.matchAll(/\bhttps?:\/\/[^\s<>"']+/gi)) {
      const address = found[0].replace(/[.,;:!?)\]}’”]+$/, "");
      let url;
      try {
        url = new URL(address);
      } catch {
        continue;
      }
      if (url.protocol !== "http:" && url.protocol !== "https:") continue;
      parts.push(text.slice(last, found.index));
      parts.push(made("a", { href: url.href, target: "_blank", rel: "noopener noreferrer", textContent: address }));
      last = found.index + address.length;
    }
    parts.push(text.slice(last));
    return parts;
  }

  /** Resolves after so long, or as soon as the signal says that it is over. */
  function pause(milliseconds, signal) {
    return new Promise((done) => {
      const timer = setTimeout(done, milliseconds);
      signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
    });
  }

  class Refused extends Error {
    constructor(response) {
      super(`HTTP ${response.status}`);
      this.status = response.status;
      this.retryAfter = 1000 * (Number(response.headers.get("Retry-After")) || 0);
    }
  }

  /** Server-sent events of a body (WHATWG HTML, 9.2.6), as far as the service writes them. */
  async function* events(body, heard) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        heard();
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const event = { name: "message", data: "", id: "" };
          for (const line of block.split("\n")) {
            const colon = line.indexOf(":");
            const field = line.slice(0, colon), said = line.slice(colon + 1).replace(/^ /, "");
            if (field === "event") event.name = said;
            else if (field === "data") event.data += said;
            else if (field === "id") event.id = said;
          }
          if (event.data) yield event;
        }
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  /** Calls the service with the person's token. */
  class Service {
    constructor(askToken) {
      this.askToken = askToken;
      this.token = null;
    }

    async call(url, { method = "GET", body, headers = {}, signal } = {}) {
      for (let again = false; ; again = true) {
        this.token ??= await this.askToken(again);
        if (!this.token) throw new Refused(new Response(null, { status: 401 }));
        const response = await fetch(url, {
          method,
          body: body && JSON.stringify(body),
          headers: { ...headers, ...(body && { "Content-Type": "application/json" }), Authorization: `Bearer ${this.token}` },
          mode: "cors",
          credentials: "omit",
          cache: "no-store",
          redirect: "error",
          referrerPolicy: "no-referrer",
          signal,
        });
        if (response.status === 401) {
          this.token = null;
          if (!again) continue;
        }
        if (!response.ok) throw new Refused(response);
        return response;
      }
    }
  }

  class NotificationBell extends HTMLElement {
    static observedAttributes = ATTRIBUTES;

    #getToken = null;
    #service = new Service(async (again) => this.#askedToken(again));
    #messages = new Map();
    #next = null;
    #unread = 0;
    #news = 0;
    #isListed = false;
    #isListing = false;
    #note = "";
    #over = null;
    #lastId = "";
    #arrived = [];
    #speaking = 0;
    #hiding = 0;
    #ticking = 0;
    #parts = {};

    constructor() {
      super();
      const root = this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [sheet];
      const bell = made("button", { className: "bell", type: "button", attributes: { part: "bell", "aria-haspopup": "dialog" } });
      const badge = made("span", { className: "badge", attributes: { part: "badge", "aria-hidden": "true" } });
      bell.append(picture(), badge);
      const title = made("h2", { id: "title" });
      const readAll = made("button", { className: "act", type: "button" });
      const close = made("button", { className: "act close", type: "button", textContent: "✕" });
      const note = made("p", { className: "note", attributes: { role: "status" } });
      const list = made("ul", { attributes: { part: "list" } });
      const more = made("button", { className: "act more", type: "button" });
      const scroll = made("div", { className: "scroll" }, list, more);
      const panel = made(
        "div",
        { className: "panel", tabIndex: -1, hidden: true, attributes: { part: "panel", role: "dialog", "aria-labelledby": "title" } },
        made("header", {}, title, readAll, close),
        note,
        scroll,
      );
      const heard = made("div", { className: "heard", attributes: { "aria-live": "polite" } });
      root.append(bell, panel, heard);
      this.#parts = { bell, badge, panel, title, readAll, close, note, list, more, heard };
      bell.addEventListener("click", () => (panel.hidden ? this.open() : this.close()));
      close.addEventListener("click", () => this.close());
      readAll.addEventListener("click", () => this.#readAll());
      more.addEventListener("click", () => this.#list({ more: true }));
      list.addEventListener("click", (event) => this.#clicked(event));
      panel.addEventListener("keydown", (event) => this.#pressed(event));
    }

    /* --- what a page may use ------------------------------------------------------------------------------------- */

    /** An async function that gives a token of the person; asked at first, and again whenever the last one is refused. */
    get getToken() {
      return this.#getToken;
    }

    set getToken(ask) {
      this.#getToken = ask;
      this.#service.token = null;
      // It may be somebody else.
      this.#lastId = "";
      this.#messages.clear();
      this.#isListed = false;
      this.#next = null;
      this.#note = "";
      this.#count(0);
      this.#draw();
      this.#restart();
      if (!this.#parts.panel.hidden) this.#list();
    }

    /** A token, for a page that has but one. It can be set, and not read. */
    set token(token) {
      let given = token;
      this.getToken = async () => {
        const once = given;
        given = null;
        return once;
      };
    }

    get unread() {
      return this.#unread;
    }

    open() {
      const { panel, bell } = this.#parts;
      panel.hidden = false;
      panel.classList.toggle("from-start", bell.getBoundingClientRect().right < panel.offsetWidth);
      this.#ticking = setInterval(() => this.#draw(), 60000);
      this.#draw();
      panel.focus();
      this.#list();
    }

    close() {
      const { panel, bell } = this.#parts;
      if (panel.hidden) return;
      const hadFocus = panel.contains(this.shadowRoot.activeElement);
      panel.hidden = true;
      clearInterval(this.#ticking);
      this.#draw();
      if (hadFocus) bell.focus();
    }

    /* --- life ----------------------------------------------------------------------------------------------------- */

    connectedCallback() {
      for (const name of ["getToken", "token"]) {
        if (Object.hasOwn(this, name)) {  // set before this script was there
          const given = this[name];
          delete this[name];
          this[name] = given;
        }
      }
      document.addEventListener("visibilitychange", this.#seen);
      document.addEventListener("pointerdown", this.#elsewhere);
      document.addEventListener("keydown", this.#escaped);
      addEventListener("pagehide", this.#stop);
      addEventListener("pageshow", this.#shownAgain);
      addEventListener("online", this.#restart);
      this.#draw();
      this.#restart();
    }

    disconnectedCallback() {
      document.removeEventListener("visibilitychange", this.#seen);
      document.removeEventListener("pointerdown", this.#elsewhere);
      document.removeEventListener("keydown", this.#escaped);
      removeEventListener("pagehide", this.#stop);
      removeEventListener("pageshow", this.#shownAgain);
      removeEventListener("online", this.#restart);
      clearInterval(this.#ticking);
      this.#parts.panel.hidden = true;
      this.#stop();
    }

    attributeChangedCallback(name, before, now) {
      if (before === now || !this.isConnected) return;
      if (name === "lang") this.#draw();
      else this.#restart();
    }

    #stop = () => {
      clearTimeout(this.#hiding);
      this.#over?.abort();
      this.#over = null;
    };

    #restart = () => {
      this.#stop();
      if (!this.isConnected || !this.#getToken || !this.hasAttribute("src") || document.hidden) return;
      this.#over = new AbortController();
      this.#follow(this.#over.signal);
    };

    /** A page that nobody sees keeps its stream for a while, and then asks anew when it is seen again. */
    #seen = () => {
      clearTimeout(this.#hiding);
      if (document.hidden) this.#hiding = setTimeout(this.#stop, HIDDEN);
      else if (!this.#over) this.#restart();
    };

    #shownAgain = (event) => {
      if (event.persisted) this.#restart();
    };

    #elsewhere = (event) => {
      if (!event.composedPath().includes(this)) this.close();
    };

    #escaped = (event) => {
      if (event.key === "Escape") this.close();
    };

    /* --- the stream ------------------------------------------------------------------------------------------------ */

    async #follow(signal) {
      let failures = 0;
      while (!signal.aborted) {
        let wait = 0;
        try {
          const why = await this.#read(signal, () => (failures = 0));
          wait = why === "restart" ? Math.random() * RESTART_SPREAD : 0;
        } catch (error) {
          if (signal.aborted) return;
          this.#failed(error);
          wait = (error.retryAfter || 0) * (1 + Math.random());  // many were told the same
          if (error.status === 401 || error.status === 403 || error.status === 404) wait = LONGEST_PAUSE;
          else this.#catchUp(signal);
        }
        const longest = Math.min(FIRST_PAUSE * 2 ** failures++, LONGEST_PAUSE);
        await pause(Math.max(wait, longest * (0.5 + Math.random() / 2)), signal);
      }
    }

    /** Follow one stream to its end; why it ended. */
    async #read(signal, first) {
      const own = new AbortController();
      const abort = () => own.abort();
      signal.addEventListener("abort", abort);
      let timer = setTimeout(abort, PATIENCE);
      const heard = () => {
        clearTimeout(timer);
        timer = setTimeout(abort, PATIENCE);
      };
      try {
        const headers = this.#lastId ? { "Last-Event-ID": this.#lastId } : {};
        const url = this.#address(this.getAttribute("stream") || this.getAttribute("src"), "me/inbox/stream");
        const response = await this.#service.call(url, { headers, signal: own.signal });
        let isFirst = true;
        for await (const event of events(response.body, heard)) {
          if (isFirst && event.name !== "end") {
            isFirst = false;
            first();
            this.#say("");
            if (this.#isListed) this.#list();
          }
          const data = JSON.parse(event.data);
          if (event.name === "end") {
            if (data.reason !== "restart") this.#service.token = null;
            return data.reason;
          }
          this.#take(event.name, data);
          if (event.id) this.#lastId = event.id;
        }
        throw new TypeError("the stream broke off");
      } finally {
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        own.abort();
      }
    }

    #take(name, data) {
      if (name === "unread") {
        // Another count than these messages make: something was read or archived elsewhere.
        if (this.#isListed && data.unread !== this.#unread + this.#news) this.#list();
        this.#news = 0;
        this.#count(data.unread);
      } else if (name === "message") {
        if (this.#isListed || this.#isListing) this.#messages.set(data.id, data);
        this.#news += 1;
        this.#speak(data.title || data.body);
        this.dispatchEvent(new CustomEvent("notification", { detail: data, bubbles: true, composed: true }));
      } else if (name === "reset" && this.#isListed) this.#list();
      this.#draw();
    }

    /** Without a stream the count comes by asking, as often as a stream is tried. */
    async #catchUp(signal) {
      try {
        const response = await this.#service.call(this.#api("inbox/unread-count"), { signal });
        const { unread } = await response.json();
        if (unread !== this.#unread && this.#isListed) this.#list();
        this.#count(unread);
        this.#draw();
      } catch {
        // The stream says what is wrong.
      }
    }

    #failed(error) {
      const words = this.#words;
      if (error.status === 401) this.#say(words.signedOut);
      else if (error.status === 403 || error.status === 404) this.#say(words.refused);
      else this.#say(words.away);
    }

    /* --- the list --------------------------------------------------------------------------------------------------- */

    async #list({ more = false } = {}) {
      if (!this.#getToken || !this.hasAttribute("src")) return;
      const known = more ? [] : [...this.#messages.keys()];
      this.#isListing = true;
      const cursor = more && this.#next ? `&cursor=${encodeURIComponent(this.#next)}` : "";
      try {
        const response = await this.#service.call(this.#api(`inbox?limit=${PAGE}${cursor}`));
        const page = await response.json();
        for (const id of known) this.#messages.delete(id);  // what has come meanwhile stays
        for (const message of page.items) this.#messages.set(message.id, message);
        this.#next = page.nextCursor;
        this.#isListed = true;
        if (!this.#over) this.#restart();
      } catch (error) {
        this.#failed(error);
      }
      this.#isListing = false;
      this.#draw();
    }

    async #change(message, action, change) {
      const before = { ...message };
      const wasUnread = !message.readAt;
      change(message);
      if (action === "archive") this.#messages.delete(message.id);
      const isUnread = action !== "archive" && !message.readAt;
      this.#count(this.#unread + Number(isUnread) - Number(wasUnread));
      this.#draw();
      try {
        const response = await this.#service.call(this.#api(`inbox/${message.id}:${action}`), { method: "POST" });
        const now = await response.json();
        if (action !== "archive" && this.#messages.has(now.id)) this.#messages.set(now.id, now);
      } catch {
        this.#messages.set(before.id, before);
        this.#count(this.#unread - Number(isUnread) + Number(wasUnread));
        this.#say(this.#words.failed);
      }
      this.#draw();
    }

    async #readAll() {
      const upTo = Math.max(...this.#messages.keys());
      this.#parts.panel.focus();  // the button is about to go
      if (!Number.isFinite(upTo)) return;
      try {
        await this.#service.call(this.#api("inbox:read-all"), { method: "POST", body: { upTo } });
        const now = new Date().toISOString();
        for (const message of this.#messages.values()) if (message.id <= upTo) message.readAt ??= now;
        const response = await this.#service.call(this.#api("inbox/unread-count"));
        this.#count((await response.json()).unread);
      } catch {
        this.#say(this.#words.failed);
      }
      this.#draw();
    }

    #clicked(event) {
      const item = event.target.closest("li");
      const message = item && this.#messages.get(Number(item.dataset.id));
      if (!message) return;
      const button = event.target.closest("button");
      if (button?.name === "archive") {
        (item.nextElementSibling ?? item.previousElementSibling ?? this.#parts.panel).focus();
        this.#change(message, "archive", () => {});
      } else if (button?.name === "unread") this.#change(message, "unread", (each) => (each.readAt = null));
      else if (!message.readAt && (button || event.target.closest("a"))) this.#readOne(message);
    }

    #readOne(message) {
      this.#change(message, "read", (each) => (each.readAt = new Date().toISOString()));
    }

    #pressed(event) {
      const items = [...this.#parts.list.children];
      const at = items.findIndex((each) => each.contains(this.shadowRoot.activeElement));
      const to = { ArrowDown: at + 1, ArrowUp: Math.max(at - 1, 0), Home: 0, End: items.length - 1 }[event.key];
      if (to !== undefined && items[to]) {
        event.preventDefault();
        items[to].focus();
      } else if (event.key === "Enter" && items[at] === this.shadowRoot.activeElement) {
        const message = this.#messages.get(Number(items[at].dataset.id));
        if (message && !message.readAt) this.#readOne(message);
      }
    }

    /* --- looks -------------------------------------------------------------------------------------------------------- */

    #draw() {
      const { bell, badge, panel, title, readAll, close, note, list, more } = this.#parts;
      const words = this.#words;
      bell.setAttribute("aria-label", words.bell(this.#unread));
      bell.setAttribute("aria-expanded", String(!panel.hidden));
      badge.textContent = this.#unread > 99 ? "99+" : String(this.#unread);
      badge.hidden = !this.#unread;
      if (panel.hidden) return;
      title.textContent = words.title;
      readAll.textContent = words.readAll;
      readAll.hidden = !this.#unread;
      close.setAttribute("aria-label", words.close);
      more.textContent = words.more;
      more.hidden = !this.#next;
      const said = this.#note || (this.#isListed ? (this.#messages.size ? "" : words.empty) : words.loading);
      if (note.textContent !== said) note.textContent = said;
      note.hidden = !said;
      this.#drawItems(list);
    }

    /** What has not changed stays, and with it the focus. */
    #drawItems(list) {
      const there = new Map([...list.children].map((each) => [Number(each.dataset.id), each]));
      const wanted = [...this.#messages.values()].sort((a, b) => b.id - a.id).map((message) => {
        const said = JSON.stringify([message, this.#language, this.#when(message)]);
        const old = there.get(message.id);
        if (old?.said === said) return old;
        const item = this.#item(message);
        item.said = said;
        if (old?.contains(this.shadowRoot.activeElement)) queueMicrotask(() => item.focus());
        return item;
      });
      const kept = new Set(wanted);
      for (const each of [...list.children]) if (!kept.has(each)) each.remove();
      wanted.forEach((each, place) => {
        if (list.children[place] !== each) list.insertBefore(each, list.children[place] ?? null);
      });
    }

    #item(message) {
      const words = this.#words;
      const item = made("li", { tabIndex: -1, className: message.readAt ? "" : "new" });
      item.dataset.id = message.id;
      const heading = made("h3", {}, message.title || message.body.slice(0, 80));
      if (!message.readAt) heading.prepend(made("span", { className: "heard", textContent: `${words.isUnread}: ` }));
      const time = made("time", { dateTime: message.createdAt, textContent: this.#when(message) });
      time.title = new Date(message.createdAt).toLocaleString(this.#language);
      const name = message.readAt ? "unread" : "read";
      const toggle = made("button", { className: "act", type: "button", name, textContent: words[name] });
      const archive = made("button", { className: "act", type: "button", name: "archive", textContent: words.archive });
      const foot = made("div", { className: "foot" }, time, toggle, archive);
      item.append(heading);
      if (message.body && message.title) item.append(made("p", { className: "body" }, ...linked(message.body)));
      item.append(foot);
      return item;
    }

    #when(message) {
      const seconds = (Date.now() - Date.parse(message.createdAt)) / 1000;
      const relative = new Intl.RelativeTimeFormat(this.#language, { numeric: "auto" });
      if (seconds >= -5 && seconds < 60) return this.#words.now;
      if (seconds >= 0 && seconds < 3600) return relative.format(-Math.floor(seconds / 60), "minute");
      if (seconds >= 0 && seconds < 86400) return relative.format(-Math.floor(seconds / 3600), "hour");
      return new Date(message.createdAt).toLocaleString(this.#language, { dateStyle: "medium", timeStyle: "short" });
    }

    #count(unread) {
      const before = this.#unread;
      this.#unread = Math.max(unread, 0);
      if (before !== this.#unread) {
        this.dispatchEvent(new CustomEvent("unread", { detail: { unread: this.#unread }, bubbles: true, composed: true }));
      }
    }

    #say(note) {
      this.#note = note;
      this.#draw();
    }

    /** Several that come at once are said in one sentence. */
    #speak(title) {
      this.#arrived.push(title);
      clearTimeout(this.#speaking);
      this.#speaking = setTimeout(() => {
        this.#parts.heard.textContent = this.#words.arrived(this.#arrived);
        this.#arrived = [];
      }, SPOKEN);
    }

    get #language() {
      const said = this.closest("[lang]")?.getAttribute("lang") || navigator.language || "en";
      return said.toLowerCase().split("-")[0] === "de" ? "de" : "en";
    }

    get #words() {
      return WORDS[this.#language];
    }

    #api(path) {
      return this.#address(this.getAttribute("src"), path);
    }

    #address(base, path) {
      return `${base.replace(/\/+$/, "")}/api/v1/${path}`;
    }

    async #askedToken(again) {
      return this.#getToken ? this.#getToken({ again }) : null;
    }
  }

  customElements.define("notification-bell", NotificationBell);
})();
