// The service worker: it keeps the small files of the page, and gives them when there is no network. The large ones are
// kept by models.js, as they arrive. `publish web` puts VERSION and SMALL before this.

// Other sites may keep things at the same host.
const KEPT = `${registration.scope} ${VERSION}`;

addEventListener("install", (event) => {
  const requests = SMALL.map((name) => new Request(name, { cache: "reload" }));
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(requests)));
});

addEventListener("activate", (event) => {
  const forget = async () => {
    const names = await caches.keys();
    const old = names.filter((name) => name.startsWith(`${registration.scope} `) && name !== KEPT);
    await Promise.all(old.map((name) => caches.delete(name)));
  };
  event.waitUntil(forget());
});

// What is there now comes first, so that a page and its models always belong together.
addEventListener("fetch", (event) => {
  const kept = async () => (await caches.open(KEPT)).match(event.request, { ignoreSearch: true });
  event.respondWith(fetch(event.request).catch(kept));
});
