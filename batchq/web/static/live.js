// Keeps an open page up to date: asks every few seconds whether anything is new, and only then
// takes the parts that change. Everything can be read without it.
"use strict";
(() => {
  const body = document.body;
  let tag = body.dataset.tag;
  let every = Number(body.dataset.every) * 1000;
  let fails = 0;
  let timer = 0;

  const inOwnZone = (root) => {
    for (const one of root.querySelectorAll("time[datetime]")) {
      const at = new Date(one.dateTime);
      if (!Number.isNaN(at.valueOf())) {
        const two = (number) => String(number).padStart(2, "0");
        one.title = one.dateTime;
        one.textContent = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ` +
          `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
      }
    }
  };

  const nameOf = (node) => node.id || node.getAttribute("href") || "";

  const replace = (old, fresh) => {
    inOwnZone(fresh);
    if (old.innerHTML === fresh.innerHTML) return;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    if (focused && focused.matches("input, select, textarea")) return; // somebody is typing
    const open = [...old.querySelectorAll("details[open]")].map((one) => one.id);
    old.replaceChildren(...fresh.childNodes);
    for (const one of old.querySelectorAll("details")) {
      if (open.includes(one.id)) one.open = true;
    }
    if (focused && nameOf(focused)) {
      const again = [...old.querySelectorAll("a, button, summary, [tabindex]")]
        .find((one) => nameOf(one) === nameOf(focused));
      if (again) again.focus({ preventScroll: true });
    }
  };

  const look = async () => {
    const address = new URL(location.href);
    address.searchParams.set("live", "1");
    const answer = await fetch(address, {
      headers: { "If-None-Match": `"${tag}"` }, cache: "no-store", redirect: "error",
    });
    if (answer.status === 304) return;
    if (!answer.ok && answer.status !== 404) throw new Error(String(answer.status));
    const text = await answer.text();
    const page = new DOMParser().parseFromString(text, "text/html");
    tag = page.body.dataset.tag;
    every = Number(page.body.dataset.every) * 1000;
    const fresh = new Map([...page.querySelectorAll("[data-live]")].map((one) => [one.dataset.live, one]));
    const old = [...document.querySelectorAll("[data-live]")];
    if (answer.status === 404 || fresh.size !== old.length || old.some((one) => !fresh.has(one.dataset.live))) {
      if (!body.contains(document.activeElement) || !document.activeElement.matches("input, select")) {
        document.querySelector("main").replaceChildren(...page.querySelector("main").childNodes);
        inOwnZone(document.querySelector("main"));
      }
      return;
    }
    for (const one of old) replace(one, fresh.get(one.dataset.live));
  };

  const again = (delay) => {
    clearTimeout(timer);
    if (every && !document.hidden) timer = setTimeout(step, delay);
  };

  const step = async () => {
    try {
      await look();
      fails = 0;
    } catch {
      fails += 1;
    }
    const away = document.getElementById("away");
    if (away) away.hidden = fails < 2;
    again(fails ? Math.min(30000, every * 2 ** fails) : every);
  };

  inOwnZone(document);
  document.addEventListener("visibilitychange", () => again(0));
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });
  again(every);
})();
