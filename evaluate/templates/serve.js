// Sends the form without loading the page anew. Without this script the form works as any form does.
"use strict";
(() => {
  const form = document.getElementById("form");
  const results = document.getElementById("results");
  const status = document.getElementById("status");
  const snr = document.getElementById("snr");
  const shown = document.getElementById("snr-shown");
  const file = document.getElementById("file");
  const query = form.elements.q;
  const title = document.querySelector("h1").textContent;
  let running = null;
  let waiting = 0;

  function parameters() {
    const asked = new FormData(form);
    asked.delete("file");
    return new URLSearchParams(asked);
  }

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
      document.title = (asked.get("q") ? asked.get("q") + " · " : "") + title;
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
    if (!query || !query.required || query.value.trim()) waiting = setTimeout(transmit, 150);
  }

  form.addEventListener("submit", (event) => {
    if (event.submitter && "loads" in event.submitter.dataset) return; // leads to another page
    event.preventDefault();
    transmit();
  });
  snr.addEventListener("input", () => {
    shown.textContent = snr.value.replace("-", "−") + " dB";
    transmitSoon();
  });
  form.addEventListener("change", (event) => {
    if (![query, snr, file].includes(event.target)) transmitSoon();
  });
  if (file) {
    const button = document.getElementById("upload");
    button.hidden = true;
    file.addEventListener("change", () => {
      const chosen = file.files[0];
      if (!chosen) return;
      const most = Number(file.dataset.most);
      if (chosen.size > most) {
        status.textContent = chosen.name + " is too large: at most " + most / 2 ** 20 + " MiB are taken";
      } else {
        status.textContent = "uploading …";
        form.requestSubmit(button);
      }
    });
  }
  document.querySelectorAll(".examples a").forEach((link) => {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      query.value = link.textContent;
      transmit();
    });
  });
  document.documentElement.dataset.ready = "yes";
})();
