// Browsers refuse workers to pages that are opened from a folder. There the search runs in a hidden frame instead.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.scope = frame.contentWindow
      this.scope.importScripts = (...urls) => Promise.all(urls.map(script => this.load(script)))
      this.scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.ready = this.load(url)
    }
    load(url) {
      return new Promise((done, fail) => {
        const script = this.scope.document.createElement("script")
        script.src = new URL(url, location.href)
        script.onload = done
        script.onerror = fail
        this.scope.document.body.append(script)
      })
    }
    postMessage(data) {
      this.ready.then(() => this.scope.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {
      this.scope.frameElement.remove()
    }
  }
