// What went wrong: a code that the catalogues of words know, and what the service said of it.

export class Problem extends Error {
  constructor(code, detail = "", members = {}) {
    super(detail || code);
    this.code = code;
    this.detail = detail;
    this.members = members;
  }

  // From an answer that is problem+json, or from whatever stands between here and the service.
  static async of(response) {
    const document = await response.json().catch(() => null);
    if (!document?.code) return new Problem("unexpected", "", { status: response.status });
    return new Problem(document.code, document.detail, document);
  }
}
