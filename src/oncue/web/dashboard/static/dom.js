// Draws trees of plain values, and changes only what differs: focus, scrolling and what was typed stay.
// Text goes in as text nodes alone: nothing that comes from a job can become an element.

export const at = id => document.getElementById(id);
const flat = kids => kids.flat(9).filter(kid => kid != null && kid !== false && kid !== "").map(kid => kid.tag ? kid : String(kid));

// h("p.lead", {id: "x"}, "text", [more]): an element, its classes, properties if any, and content.
export function h(name, ...kids) {
	const [tag, ...looks] = name.split("."), props = kids[0]?.constructor === Object && !kids[0].tag ? kids.shift() : {};
	return {tag, props: looks[0] ? {...props, class: looks.join(" ")} : props, kids: flat(kids)};
}

export function draw(parent, ...trees) {
	const kids = flat(trees), keys = new Set(kids.map(kid => kid.props?.key)), keyed = new Map();
	// What is gone leaves first: moving what stays would take the focus away.
	for (const node of [...parent.childNodes]) {
		if (node.$key != null) keys.has(node.$key) ? keyed.set(node.$key, node) : node.remove();
	}
	let next = parent.firstChild;
	for (const kid of kids) {
		const known = keyed.get(kid.props?.key) ?? next, node = known && fits(known, kid) ? known : made(parent, kid);
		if (node === next) next = node.nextSibling;
		else parent.insertBefore(node, next);
		if (kid.tag) {
			dress(node, kid.props);
			draw(node, kid.kids);
		} else if (node.data !== kid) node.data = kid;
	}
	for (let gone; (gone = next);) {
		next = next.nextSibling;
		gone.remove();
	}
}

const fits = (node, kid) => kid.tag ? node.localName === kid.tag && node.$key === kid.props.key : node.nodeType === 3;

const made = (parent, kid) => kid.tag
	? document.createElementNS(kid.tag === "svg" ? "http://www.w3.org/2000/svg" : parent.namespaceURI, kid.tag)
	: document.createTextNode(kid);

function dress(node, props) {
	const old = node.$drawn ?? {};
	for (const name in {...old, ...props}) if (props[name] !== old[name]) set(node, name, props[name]);
	node.$drawn = props;
}

function set(node, name, value) {
	// A form's fields hide properties of their names, such as key.
	if (name === "key") node.$key = value;
	else if (name.startsWith("on")) node[name] = value;
	else if (["value", "checked"].includes(name)) node[name] = value ?? "";
	else if (name === "top") node.style.top = value;
	else if (value == null || value === false) node.removeAttribute(name);
	else node.setAttribute(name, value === true ? "" : value);
}
