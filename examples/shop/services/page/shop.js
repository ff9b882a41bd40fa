// Orders go to the API behind the same gateway; the answer tells which services had a part in it.
const order = document.getElementById("order");
const user = document.getElementById("user");

user.addEventListener("change", () => {
  document.cookie = `user=${encodeURIComponent(user.value)};path=/;samesite=lax`;
  location.reload();
});

function show(title, lines) {
  const list = document.createElement("ol");
  for (const line of lines) {
    list.append(Object.assign(document.createElement("li"), { textContent: line }));
  }
  order.replaceChildren(Object.assign(document.createElement("strong"), { textContent: title }), list);
  order.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-buy]");
  if (!button) return;
  button.disabled = true;
  try {
    const answer = await fetch("/api/orders", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ user: user.value, items: { [button.dataset.buy]: 1 } }),
    });
    const body = await answer.json().catch(() => ({ error: `the gateway answered ${answer.status}` }));
    if (answer.ok) show(`Thank you! Order ${body.id}`, body.trail.map((step) => `${step.service}: ${step.by}`));
    else show("That did not work", [body.error]);
  } catch (error) {
    show("That did not work", [String(error)]);
  } finally {
    button.disabled = false;
  }
});
