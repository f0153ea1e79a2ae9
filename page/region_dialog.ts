// Upload a picture or a small slide, and box a region of it.

import { find, sentence } from "./dom";
import { Refused } from "./http";
import { Limits, Region, RegionPicker } from "./region";
import { pictureAt, sendImage, Uploaded } from "./server";

/** What the box is for. */
export interface Purpose {
  title: string;
  button: string;
  limits: Limits;
  size: number; // px of the first box
  /** Use the box; a reason why not, or a warning, stays on the page. */
  use(image: Uploaded, picture: ImageBitmap, box: Region): Promise<string | null>;
}

export class RegionDialog {
  private readonly dialog = find<HTMLDialogElement>("region-dialog");
  private readonly picker = new RegionPicker(find("region"), (text) => (find("region-box").textContent = text));
  private purpose: Purpose | null = null;
  private image: { uploaded: Uploaded; picture: ImageBitmap } | null = null;

  constructor(private readonly mostBytes: () => number, private readonly say: (message: string) => void) {
    const file = find<HTMLInputElement>("image-file");
    find("choose-image").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      if (file.files?.[0]) void this.upload(file.files[0]);
      file.value = "";
    });
    find("region-use").addEventListener("click", () => void this.use());
  }

  /** Ask for a box; a picture of before is offered again. */
  open(purpose: Purpose): void {
    this.purpose = purpose;
    find("region-title").textContent = purpose.title;
    find("region-use").textContent = purpose.button;
    find("region-message").textContent = "";
    this.dialog.showModal();
    this.show();
  }

  private show(): void {
    find("region-work").hidden = !this.image;
    find<HTMLButtonElement>("region-use").disabled = !this.image;
    if (!this.image) return;
    this.picker.show(this.image.picture, this.purpose!.limits, this.purpose!.size);
    find("region").focus();
  }

  private async upload(file: File): Promise<void> {
    const message = find("region-message");
    if (file.size > this.mostBytes()) {
      message.textContent = `The file has ${megabytes(file.size)} MB; at most ${megabytes(this.mostBytes())} MB are allowed.`;
      return;
    }
    message.textContent = "Loading…";
    try {
      const uploaded = await sendImage(file);
      this.image = { uploaded, picture: await pictureAt(uploaded.url) };
      message.textContent = uploaded.warning ? sentence(uploaded.warning) : "";
      this.show();
    } catch (error) {
      message.textContent = sentence((error as Error).message);
    }
  }

  private async use(): Promise<void> {
    const { uploaded, picture } = this.image!;
    try {
      const warning = await this.purpose!.use(uploaded, picture, this.picker.box);
      this.dialog.close();
      if (warning) this.say(sentence(warning));
    } catch (error) {
      find("region-message").textContent = sentence((error as Error).message);
      if (!(error instanceof Refused && error.status === 404)) return;
      this.image = null; // the server no longer holds it
      this.show();
    }
  }
}

const megabytes = (bytes: number) => Math.ceil(bytes / 2 ** 20);
