// Sends the form without loading the page anew. Without this script the form works as any form does.
"use strict";
(() => {
  const form = document.getElementById("form");
  const results = document.getElementById("results");
  const status = document.getElementById("status");
  const snr = document.getElementById("snr");
  const shown = document.getElementById("snr-shown");
  let running = null;
  let waiting = 0;

  const parameters = () => new URLSearchParams(new FormData(form));

  async function transmit() {
    clearTimeout(waiting);
    if (running) running.abort();
    const mine = (running = new AbortController());
    const asked = parameters();
    const open = [...results.querySelectorAll("details")].map((one) => one.open);
    status.textContent = "transmitting …";
    results.classList.add("busy");
    try {
      const answer = await fetch("results?" + asked, { signal: mine.signal });
      // The server has escaped everything in it.
      results.innerHTML = await answer.text();
      [...results.querySelectorAll("details")].forEach((one, i) => { one.open = Boolean(open[i]); });
      status.textContent = answer.ok ? "received" : "";
      history.replaceState(null, "", "?" + asked);
      document.title = asked.get("q") + " · Search over a simulated link";
    } catch (error) {
      if (error.name === "AbortError") return;
      status.textContent = "no answer: is sclmkb-eval serve still running?";
    }
    if (running === mine) {
      running = null;
      results.classList.remove("busy");
    }
  }

  function transmitSoon() {
    clearTimeout(waiting);
    if (form.elements.q.value.trim()) waiting = setTimeout(transmit, 150);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    transmit();
  });
  snr.addEventListener("input", () => {
    shown.textContent = snr.value.replace("-", "−") + " dB";
    transmitSoon();
  });
  form.addEventListener("change", (event) => {
    if (event.target !== form.elements.q && event.target !== snr) transmitSoon();
  });
  document.querySelectorAll(".examples a").forEach((link) => {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      form.elements.q.value = link.textContent;
      transmit();
    });
  });
  document.documentElement.dataset.ready = "yes";
})();
