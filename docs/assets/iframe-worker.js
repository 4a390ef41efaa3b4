// Browsers start no worker for a page that was opened from disk. There, and only there, a hidden frame does a worker's work,
// so that search answers without a server. Everywhere else the browser's own workers stay.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const source = new URL(url, location.href).href.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.worker = this;
      this.frame.srcdoc =
        "<script>self.postMessage = (data) => frameElement.worker.answered(data)</script>" +
        `<script src="${source}"></script>`;
      this.frame.addEventListener("load", () => {
        const asked = this.waiting;
        this.waiting = null;
        asked.forEach((data) => this.ask(data));
      });
      document.body.append(this.frame);
    }

    answered(data) {
      this.dispatchEvent(new MessageEvent("message", { data }));
    }

    ask(data) {
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.ask(data);
    }

    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
