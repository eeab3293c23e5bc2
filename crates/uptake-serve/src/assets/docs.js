// Shows /openapi.json: each operation with its parameters, bodies and answers.
const element = (name, text, parent, className) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  parent?.append(made);
  return made;
};
const nameOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return `list of ${nameOf(schema.items)}`;
  return Array.isArray(schema.type) ? schema.type.join(" or ") : (schema.type ?? "");
};
const table = (parent, caption, rows) => {
  if (!rows.length) return;
  const made = element("table", "", parent);
  element("caption", caption, made);
  for (const cells of rows) {
    const row = element("tr", "", made);
    cells.forEach((cell, n) => element(n ? "td" : "th", cell, row));
  }
};
const show = (api) => {
  const place = document.getElementById("api");
  place.textContent = "";
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const part = element("section", "", place);
      const heading = element("h2", "", part);
      element("code", `${method.toUpperCase()} ${path}`, heading);
      element("p", operation.summary ?? operation.description ?? "", part);
      table(part, "Parameters", (operation.parameters ?? []).map((p) => [p.name, p.in, p.description ?? ""]));
      const body = Object.values(operation.requestBody?.content ?? {})[0];
      if (body) element("p", `Body: ${nameOf(body.schema)}. ${operation.requestBody.description ?? ""}`, part);
      const answers = Object.entries(operation.responses ?? {});
      table(part, "Answers", answers.map(([status, answer]) => [status, answer.description ?? "",
        nameOf(Object.values(answer.content ?? {})[0]?.schema)]));
    }
  }
  for (const [name, schema] of Object.entries(api.components?.schemas ?? {})) {
    const part = element("section", "", place);
    element("h2", name, part);
    element("p", schema.description ?? "", part);
    table(part, "Fields", Object.entries(schema.properties ?? {}).map(([field, of]) => [field, nameOf(of), of.description ?? ""]));
  }
};
fetch("/openapi.json")
  .then((answer) => answer.json())
  .then(show)
  .catch(() => { document.getElementById("api").textContent = "The API could not be read."; });
