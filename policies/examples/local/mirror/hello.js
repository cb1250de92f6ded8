document.documentElement.dataset.mirror = "local";
