// The row of examples: each is shown by its map.

import { find, make } from "./dom";
import { MapPicture, TissueType } from "./map_picture";
import { attempt } from "./page";
import { mapAt, State } from "./server";

/** Show all examples; `open` gets the name of the one that is pressed. */
export async function showExamples(examples: State["examples"], types: TissueType[], open: (name: string) => Promise<void>): Promise<void> {
  const items = examples.map(async ({ name, url_map }) => {
    const [picture, colors, map] = [make("canvas"), new MapPicture(), await mapAt(url_map)];
    [picture.width, picture.height] = [map.width, map.height];
    picture.setAttribute("aria-hidden", "true");
    colors.setTypes(types);
    colors.show(map);
    colors.draw(picture.getContext("2d")!);
    return make("li", {}, make("button", { type: "button", onclick: () => void attempt(() => open(name)) }, picture, name));
  });
  find("examples").replaceChildren(...(await Promise.all(items)));
}
